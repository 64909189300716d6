"""What to say where an extra of this package is used and not installed."""

from __future__ import annotations


def missing_extra(extra: str, package: str, what: str) -> ImportError:
    """The error to raise: one line that names the extra.

    Args:
        extra: its name in ``pyproject.toml``.
        package: the distribution that it brings.
        what: what needs it, the first words of the message.
    """
    return ImportError(f"{what} needs {package}: pip install 'unitalking-data[{extra}]'")
