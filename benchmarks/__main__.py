"""``python -m benchmarks``: the list of benchmarks."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

from kit import cli
from kit.cli import Command, Program


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _list(options: argparse.Namespace) -> int:
    for name, text in benchmarks().items():
        print(f"python -m benchmarks.{name:12} {text}")
    return 0


def benchmarks() -> dict[str, str]:
    """Return the first docstring line of every benchmark by name; none is imported, which would take seconds."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        names = [ast.unparse(name) for node in tree.body if isinstance(node, ast.Assign) for name in node.targets]
        if "PROGRAM" in names:
            found[path.stem] = (ast.get_docstring(tree) or "").splitlines()[0]
    return found


PROGRAM = Program(
    "python -m benchmarks",
    "List the benchmarks. Each prints its command, the machine, the figure and what it is compared with.",
    Command(_list, "list the benchmarks", ["python -m benchmarks", "python -m benchmarks.train --help"]),
)

if __name__ == "__main__":
    sys.exit(main())
