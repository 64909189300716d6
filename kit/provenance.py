"""What made a result: the code's revision and the machine."""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]


@cache
def code_revision() -> str:
    """Return the checkout's commit, with ``+changes`` where files differ from it; ``unknown`` outside a checkout."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+changes" if dirty.strip() else "")


def machine() -> str:
    """Describe this machine in a line: architecture, cores, memory, system, Python."""
    memory = psutil.virtual_memory().total / 2**30
    version = ".".join(map(str, sys.version_info[:3]))
    return f"{platform.machine()}, {psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {version}"
