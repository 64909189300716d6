"""What the library imports: its public names when they are used, an extra when it is needed, the house never."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterable

import pytest

import unitalking_data
from tests.conftest import REPOSITORY
from tests.test_floors import FLOORS

LIBRARY = REPOSITORY / "unitalking_data"
MODULES = {f"unitalking_data.{path.stem}" for path in LIBRARY.glob("*.py")} - {
    "unitalking_data.__init__",
    "unitalking_data.__main__",
    "unitalking_data.setup",
}
HOUSE = {*FLOORS, "tests"} - {"unitalking_data"}
EXTRAS = {"torch", "av", "s3fs", "botocore"}
# What the house uses and the library must not.
OTHERS = {"ray", "diffusers", "transformers", "scipy", "jinja2", "yaml", "duckdb", "cv2", "matplotlib", "psutil"}

WITHOUT = """import sys

class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def imported(modules: Iterable[str]) -> set[str]:
    """Top-level names of all that a new process has imported after these modules."""
    done = run(
        f"import json, sys, {', '.join(sorted(modules))}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_package_alone_imports_next_to_nothing():
    assert not imported(["unitalking_data"]) & {"numpy", "pyarrow", "fsspec", "pydantic", *EXTRAS, *OTHERS, *HOUSE}


def test_all_modules_but_the_loader_need_no_extra_and_nothing_of_the_house():
    found = imported(MODULES - {"unitalking_data.loader"})
    assert found >= {"numpy", "pyarrow", "fsspec", "pydantic"}
    assert not found & (EXTRAS | OTHERS | HOUSE)


def test_the_dataset_imports_no_torch():
    assert "torch" not in imported(["unitalking_data.dataset"])


def test_the_loader_needs_neither_ray_nor_a_model():
    found = imported(["unitalking_data.loader"])
    assert "torch" in found
    assert not found & (HOUSE | {"ray", "diffusers", "transformers", "av", "s3fs", "scipy", "cv2"})


def test_public_names_come_from_where_they_are_said_to():
    assert sorted(unitalking_data._MODULE_OF) == sorted(unitalking_data.__all__)
    for name, module in unitalking_data._MODULE_OF.items():
        home = importlib.import_module(f"unitalking_data.{module}")
        assert getattr(unitalking_data, name) is getattr(home, name)
    assert set(unitalking_data.__all__) <= set(dir(unitalking_data))


def test_type_checkers_see_the_same_names():
    (block,) = (
        node
        for node in ast.parse((LIBRARY / "__init__.py").read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"unitalking_data.{module}" for name, module in unitalking_data._MODULE_OF.items()}


def test_no_public_name_hides_a_module():
    """An import of the module would put it in the name's place."""
    assert not {f"unitalking_data.{name}" for name in unitalking_data.__all__} & MODULES


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'unitalking_data' has no attribute 'ClipReader'"):
        unitalking_data.ClipReader  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'ClipReader'"):
        exec("from unitalking_data import ClipReader")


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        (
            "torch",
            "from unitalking_data import ClipLoader",
            "ClipLoader needs torch: pip install 'unitalking-data[torch]'",
        ),
        ("torch", "import unitalking_data.loader", "ClipLoader needs torch: pip install 'unitalking-data[torch]'"),
        (
            "av",
            "from unitalking_data import DECODERS; DECODERS['mp4'](b'')",
            "decoding mp4 needs av: pip install 'unitalking-data[video]'",
        ),
        (
            "s3fs",
            "from unitalking_data import ClipDataset; ClipDataset('s3://bucket/v1', 'train')",
            "s3://bucket/v1 needs s3fs: pip install 'unitalking-data[s3]'",
        ),
    ],
)
def test_without_an_extra_the_error_is_one_line_that_names_it(package, code, message):
    done = run(WITHOUT + code, package)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ImportError: {message}"
    assert done.stderr.count("Error: ") == 1  # no chain of causes


def test_the_command_says_it_in_one_line():
    done = run(f"{WITHOUT}from unitalking_data.cli import main\nsys.exit(main(['verify', 's3://bucket/v1']))", "s3fs")
    assert done.returncode == 2
    assert done.stderr == "error: s3://bucket/v1 needs s3fs: pip install 'unitalking-data[s3]'\n"


@pytest.mark.parametrize(
    ("package", "code"),
    [("torch", "import unitalking_data.loader"), ("av", "from unitalking_data import DECODERS; DECODERS['mp4'](b'')")],
)
def test_an_extra_that_is_there_but_broken_tells_its_own_story(package, code, tmp_path):
    (tmp_path / f"{package}.py").write_text("import a_library_of_its_own")
    done = run(f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}")
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'a_library_of_its_own'"
