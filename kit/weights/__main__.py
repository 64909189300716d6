"""``python -m kit.weights``: list, fetch and verify the model files of the registry."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from kit import cli
from kit.cli import Command, Program, argument
from kit.progress import size_text
from kit.weights.cache import CachedFile, cached_files, weights_dir
from kit.weights.entries import Reference, WeightsError, parse, registry
from kit.weights.pins import LOCK, read_pins
from kit.weights.sources import fetch


def main(arguments: Sequence[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _list(options: argparse.Namespace) -> int:
    for name in options.names or registry():
        print(_line(parse(name)))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    for name in options.names:
        print(f"{name}: {fetch(name)}", flush=True)
    return 0


def _check(options: argparse.Namespace) -> int:
    """Exit code 1 where a file is wrong."""
    return _verify([parse(name) for name in options.names or registry()], named=bool(options.names))


def _line(reference: Reference) -> str:
    """One model: state, size, hashes, terms, use."""
    files, weight = list(cached_files(reference)), reference.weight
    there = sum(file.path.is_file() for file in files)
    state = "cached" if there == len(files) else f"{there} of {len(files)}" if there else "absent"
    if not weight.sources:
        state = "by path"
    sizes = [file.stated.bytes or (file.pin.bytes if file.pin else None) for file in files]
    size = size_text(sum(filter(None, sizes))) if all(sizes) else "size not stated"
    hashes = Counter(file.hash_state for file in files)
    stated = ", ".join(kind if len(hashes) == 1 else f"{count} {kind}" for kind, count in hashes.items())
    terms = f"{weight.licence} (NON-COMMERCIAL)" if weight.commercial is False else weight.licence
    return f"{state:8} {reference.text:20} {size:>15}  hash {stated:14}  {terms:12}  {weight.use}"


def _verify(references: Sequence[Reference], *, named: bool) -> int:
    """Read every file that is there and compare hashes; models that are named must be there whole."""
    wrong = checked = 0
    known = set()
    for reference in references:
        for file in cached_files(reference):
            known.add(file.key)
            problem = _problem(file, named=named)
            if problem:
                print(f"wrong    {problem}")
                wrong += 1
            elif file.path.is_file():
                print(f"ok       {file.text} ({file.hash_state})")
                checked += 1
    if not named:
        for key in read_pins(weights_dir()).keys() - known:
            print(f"unknown  {key}: in {LOCK}, but of no entry of today's registry")
    print(f"{checked} files are right, {wrong} wrong")
    return 1 if wrong else 0


def _problem(file: CachedFile, *, named: bool) -> str | None:
    if not file.path.is_file():
        return f"{file.text}: not in the cache" if named else None
    if file.hash_state == "none":
        return f"{file.text}: no hash to compare with; pin it: python -m kit.weights fetch {file.text}"
    try:
        file.check(whole=True)
    except WeightsError as error:
        return str(error)
    return None


PROGRAM = Program(
    "python -m kit.weights",
    "List, fetch and verify the model files of the registry (configs/weights.yaml).",
    {
        "list": Command(
            _list,
            "list models: state, size, hashes, licence and use",
            ["python -m kit.weights list", "python -m kit.weights list silero_vad"],
            [argument("names", nargs="*", metavar="NAME", help="of the registry; all of them where none is given")],
        ),
        "fetch": Command(
            _fetch,
            "download models into the cache, and check them; what is there is left alone",
            ["python -m kit.weights fetch silero_vad mmaudio-44k", "python -m kit.weights fetch ovi/model.safetensors"],
            [argument("names", nargs="+", metavar="NAME", help="of the registry, or NAME/PATH for one file")],
        ),
        "verify": Command(
            _check,
            "compare the cached files with the registry and the lock file; exit code 1 where one is wrong",
            ["python -m kit.weights verify", "python -m kit.weights verify umt5-xxl"],
            [argument("names", nargs="*", metavar="NAME", help="of the registry; all that is cached by default")],
        ),
    },
    default="list",
)


if __name__ == "__main__":
    sys.exit(main())
