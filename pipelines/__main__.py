"""``python -m pipelines``: whole runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from curation.__main__ import USER_ERRORS
from pipelines.demo import demo

EXAMPLES = """examples:
  python -m pipelines demo
  python -m pipelines demo --folder mydemo --executor local
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="Whole runs, from the first job to the last.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    text = "build a small labelled corpus, curate it, and report how often the curation was right"
    command = commands.add_parser("demo", help=text, description=text)
    command.add_argument("--folder", type=Path, default=Path("demo"), help="where corpus, scores and report go")
    command.add_argument("--executor", choices=("ray", "local"), default="ray", help="default: a Ray of this machine")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    options = parser.parse_args(arguments)
    try:
        return demo(options.folder, options.executor, options.overrides)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
