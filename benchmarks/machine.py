"""What every benchmark says about itself before its figures."""

from __future__ import annotations

import resource
import sys

from kit.provenance import code_revision, machine


def headline(module: str) -> str:
    """Command, machine and code revision, one line each."""
    command = " ".join(["python -m", module, *sys.argv[1:]])
    return f"command:  {command}\nmachine:  {machine()}\nrevision: {code_revision()[:12]}"


def peak_gib(children: bool = False) -> float:
    """High-water mark of resident memory of this process (or of its largest ended child) in GiB."""
    who = resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF
    return resource.getrusage(who).ru_maxrss / 2**20
