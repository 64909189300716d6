"""Build in a temporary folder. Out of a ``build/`` in the tree, setuptools would pack modules that are long deleted."""

from __future__ import annotations

import tempfile

from setuptools import setup
from setuptools.command.build import build


class BuildElsewhere(build):
    """The ``build`` command, with its intermediate files in a folder that goes when the build ends."""

    def finalize_options(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.build_base = self._folder.name
        super().finalize_options()


# This script lies among the modules of the package. Its name keeps it out of the wheel, and in the sdist.
setup(script_name="setup.py", cmdclass={"build": BuildElsewhere})
