"""``python -m pipelines.tiny_world``: generate the tiny world as a release."""

from __future__ import annotations

import argparse
import os
import sys

from corpus.describe import describe
from pipelines.tiny_world.face import FPS
from pipelines.tiny_world.release import write_release


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.tiny_world", description=__doc__)
    parser.add_argument("folder", help="of the release, local or fsspec URL")
    parser.add_argument("--train", type=int, default=8192, help="clips to train on (default %(default)s)")
    parser.add_argument("--val", type=int, default=64)
    parser.add_argument("--test", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=FPS, help="pictures a second (default %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes")
    options = parser.parse_args(arguments)
    clips = {"train": options.train, "val": options.val, "test": options.test}
    try:
        manifest = write_release(
            options.folder,
            clips,
            seed=options.seed,
            fps=options.fps,
            workers=options.workers,
            report=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; what was written stays, run again to go on", file=sys.stderr)
        return 1
    print(describe(manifest))
    return 0


if __name__ == "__main__":
    sys.exit(main())
