"""``python -m pipelines``: whole runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from corpus.describe import describe
from curation.__main__ import USER_ERRORS
from pipelines.demo import demo
from pipelines.demo_training import demo_training
from pipelines.release import release

EXAMPLES = """examples:
  python -m pipelines demo
  python -m pipelines demo --folder mydemo --executor local
  python -m pipelines demo-training
  python -m pipelines release --config configs/release/cpu.yaml --set version=v1 --set root=release
  python -m pipelines release --config mine.yaml --set version=v2 --set previous=v1 --set takedown=gone.txt
  ray job submit --working-dir . -- python -m pipelines release --config configs/release/paper.yaml
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="Whole runs, from the first job to the last.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    first = "build a small labelled corpus, curate it, and report how often the curation was right"
    further = "the demo, and then its kept clips the whole way: release, latents, a few hundred training steps, samples"
    for name, text in (("demo", first), ("demo-training", further)):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--folder", type=Path, default=Path("demo"), help="where everything goes")
        command.add_argument(
            "--executor", choices=("ray", "local"), default="ray", help="default: a Ray of this machine"
        )
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    text = "publish the kept clips as shards that others can read; continues where an earlier build stopped"
    command = commands.add_parser("release", help=text, description=text)
    command.add_argument("--config", required=True, metavar="FILE", help="YAML configuration (configs/release/*.yaml)")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change one setting, a.b=c",
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "release":
            return _release(options)
        if options.command == "demo-training":
            return demo_training(options.folder, options.executor, options.overrides, _say)
        return demo(options.folder, options.executor, options.overrides)
    except (*USER_ERRORS, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"error: {error.strerror or error}{place}; what was finished is kept, run again to go on", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("stopped; run again to go on", file=sys.stderr)
        return 130


def _release(options: argparse.Namespace) -> int:
    manifest = release(options.config, options.overrides, _say)
    print(describe(manifest))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
