"""``python -m corpus``: verify and describe releases. Needs no Ray."""

from __future__ import annotations

import argparse
import sys

from corpus.describe import describe, describe_difference
from corpus.manifest import ManifestError, read_manifest
from corpus.plan import Previous
from corpus.storage import Store
from corpus.verify import verify

EXAMPLES = """examples:
  python -m corpus verify release/v1
  python -m corpus verify s3://bucket/release/v1 --workers 8
  python -m corpus describe release/v1
  python -m corpus describe release/v1 release/v2
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m corpus",
        description="Check a release, say what it holds, or how two of them differ.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = (
        "read every byte of a release and check it against its manifest and tables; exit code 1 where it is not sound"
    )
    command = commands.add_parser("verify", help=text, description=text)
    command.add_argument("release", help="folder or fsspec URL")
    command.add_argument("--workers", type=int, default=2, help="shards that are read at once (default 2)")
    text = "say what a release holds, or what changed from one to another"
    command = commands.add_parser("describe", help=text, description=text)
    command.add_argument("release", help="folder or fsspec URL")
    command.add_argument("other", nargs="?", help="a later release to compare with")
    options = parser.parse_args(arguments)
    try:
        return _verify(options) if options.command == "verify" else _describe(options)
    except (ManifestError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _verify(options: argparse.Namespace) -> int:
    found = verify(options.release, workers=options.workers, progress=lambda line: print(line, file=sys.stderr))
    for problem in found.problems:
        print(problem)
    state = f"{len(found.problems)} problems" if found.problems else "sound"
    print(f"release {found.version}: {found.clips:,} clips, {found.files:,} files, {found.bytes:,} bytes: {state}")
    return 1 if found.problems else 0


def _describe(options: argparse.Namespace) -> int:
    if options.other:
        print(describe_difference(Previous.open(options.release), Previous.open(options.other)))
    else:
        print(describe(read_manifest(Store(options.release))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
