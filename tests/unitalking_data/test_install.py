"""The library as another team gets it: a wheel in an environment that has its requirements and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import REPOSITORY
from tests.unitalking_data import samples
from unitalking_data import __version__

LIBRARY = REPOSITORY / "unitalking_data"
REQUIREMENTS = {"fsspec", "numpy", "pyarrow", "pydantic"}

READ = """
import json, sys
import unitalking_data
from unitalking_data import ClipDataset
clips = ClipDataset(sys.argv[1], "train", decoders={"json": json.loads})
print(json.dumps({
    "file": unitalking_data.__file__,
    "clips": [[clip["key"], clip["prompt"], clip["take"], len(clip["mp4"]), clip["json"]["key"]] for clip in clips],
    "modules": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""
# Gives the global batches of some steps, put together from the ranks, and the state after them.
RUN = """
import json, sys
from unitalking_data import ClipDataset, ClipLoader

def run(state, world, workers, steps):
    ranks = []
    for rank in range(world):
        clips = ClipDataset(sys.argv[1], "train", seed=5)
        loader = ClipLoader(clips, batch=6, seed=1, rank=rank, world=world, workers=workers, window=2)
        if state:
            loader.load_state_dict(state)
        ranks.append([batch.samples for _, batch in zip(range(steps), loader)])
    batches = [[clip for clips in zip(*parts) for clip in clips] for parts in zip(*ranks)]
    names = ("key", "epoch", "prompt", "take")
    return [[[clip[name] for name in names] for clip in batch] for batch in batches], loader.state_dict()

print(json.dumps([run(*how) for how in json.loads(sys.argv[2])]))
"""


def pip(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the folder, in which an earlier build has left a module that is gone."""
    folder = tmp_path_factory.mktemp("wheel")
    needed = ("setuptools>=77", "pydantic>=2.8")
    asked = pip("download", "--no-deps", "--retries", 0, "--timeout", 20, "--dest", folder / "asked", *needed)
    if asked.returncode:
        pytest.skip(f"needs a package index, and none answers: {asked.stderr.strip().splitlines()[-1]}")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    copy = Path(shutil.copytree(LIBRARY, folder / "unitalking_data", ignore=unwanted))
    stale = copy / "build" / "lib" / "unitalking_data" / "gone.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    built = pip("wheel", "--no-deps", "--wheel-dir", folder, copy)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("*.whl")
    return found


class Environment:
    """A virtual environment without the packages of any other."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.bin, self.elsewhere = folder / "venv" / "bin", folder / "elsewhere"
        self.elsewhere.mkdir()
        (self.packages,) = (folder / "venv").glob("lib/python*/site-packages")

    def installed(self) -> set[str]:
        return {canonicalize_name(found.name) for found in metadata.distributions(path=[str(self.packages)])}

    def run(self, program: str, *arguments: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of its programs from another folder; ``path`` is one more folder to import from."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [str(self.bin / program), *map(str, arguments)],
            cwd=self.elsewhere,
            env=variables | ({"PYTHONPATH": str(path)} if path else {}),
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    done = pip("--python", made.bin / "python", "install", "--no-compile", wheel)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("published") / "v1"
    samples.build(root, samples.keys(0, 40), version="v1")
    return root


@pytest.fixture
def torch(environment, tmp_path) -> Path:
    """A folder of links to the packages of torch and of what it requires, as they are installed here.

    So the installed wheel meets a torch without a download of gigabytes, and still nothing of this repository.
    """
    todo, done = ["torch"], environment.installed()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in done:
            continue
        done.add(name)
        found = metadata.distribution(name)
        for entry in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (tmp_path / entry).exists():
                (tmp_path / entry).symlink_to(found.locate_file(entry))
        needed = map(Requirement, found.requires or ())
        todo += [needs.name for needs in needed if needs.marker is None or needs.marker.evaluate({"extra": ""})]
    return tmp_path


def test_what_the_wheel_holds(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"unitalking_data-{__version__}.dist-info"
        names = set(archive.namelist())
        modules = {path.name for path in LIBRARY.glob("*.py")} - {"setup.py"}
        package = {f"unitalking_data/{name}" for name in modules | {"licences.json", "py.typed"}}
        assert {name for name in names if not name.startswith(info)} == package
        told = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert archive.read(f"{info}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
    required = [Requirement(line) for line in told.get_all("Requires-Dist")]
    assert {needs.name for needs in required if needs.marker is None} == REQUIREMENTS
    assert {str(needs.marker) for needs in required if needs.marker} == {
        f'extra == "{extra}"' for extra in ("torch", "s3", "video")
    }
    assert told["Version"] == __version__ and told["License-Expression"] == "Apache-2.0"


def test_the_environment_is_empty_but_for_the_requirements(environment):
    required = metadata.distribution("pydantic").requires
    further = {canonicalize_name(Requirement(line).name) for line in required}
    assert environment.installed() <= {"unitalking-data", *REQUIREMENTS, *further}


def test_a_release_is_read_without_torch(environment, published):
    done = environment.run("python", "-c", READ, published)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(environment.packages)
    keys = sorted(samples.keys(0, 40))
    assert {clip[0] for clip in found["clips"]} < set(keys) and len(found["clips"]) > 20
    for key, prompt, take, size, told in found["clips"]:
        assert prompt == f"clip {key[:4]} | <b>" and take in (0, 1) and size >= 640 and told == key
    assert "torch" not in found["modules"] and "kit" not in found["modules"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from unitalking_data import ClipLoader", "ClipLoader needs torch: pip install 'unitalking-data[torch]'"),
        (
            "from unitalking_data import DECODERS; DECODERS['mp4'](b'')",
            "decoding mp4 needs av: pip install 'unitalking-data[video]'",
        ),
        (
            "from unitalking_data import ClipDataset; ClipDataset('s3://bucket/v1', 'train')",
            "s3://bucket/v1 needs s3fs: pip install 'unitalking-data[s3]'",
        ),
    ],
)
def test_a_missing_extra_is_one_line(environment, code, message):
    done = environment.run("python", "-c", code)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"ImportError: {message}"
    assert done.stderr.count("Error: ") == 1


def test_the_command(environment, published, tmp_path):
    done = environment.run("unitalking-data", "verify", published)
    assert done.returncode == 0 and ": sound" in done.stdout, done.stderr
    done = environment.run("unitalking-data", "describe", published)
    assert done.returncode == 0 and done.stdout.startswith("release v1: 40 clips"), done.stderr
    done = environment.run("unitalking-data", "sample", published, "--number", 2, "--out", tmp_path / "clip")
    assert done.returncode == 0 and "\nprompt   short: clip " in done.stdout, done.stderr
    assert len(list((tmp_path / "clip").iterdir())) == 4
    done = environment.run("unitalking-data", "verify", "nowhere")
    assert done.returncode == 2 and done.stderr.startswith("error: no manifest.json in nowhere")
    assert environment.run("python", "-m", "unitalking_data", "--version").stdout == f"unitalking-data {__version__}\n"


def test_a_run_is_resumed_exactly_by_a_new_process(environment, published, torch):
    """On another number of ranks and workers, from a state that went through JSON."""

    def run(*how: tuple[object, int, int, int]) -> list[tuple[list[object], dict[str, object]]]:
        done = environment.run("python", "-c", RUN, published, json.dumps(how), path=torch)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (whole, end), (first, state) = run((None, 1, 0, 12), (None, 2, 1, 5))
    ((second, again),) = run((state, 3, 2, 7))
    assert first + second == whole and len(whole) == 12
    assert again == end and end["samples"] == 72


def test_beside_torch_the_environment_still_sees_nothing_of_the_house(environment, torch):
    names = ["kit", "train", "tests", "hypothesis", "scipy", "av", "s3fs", "ray", "torch"]
    code = f"import importlib.util as u; print([name for name in {names} if u.find_spec(name)])"
    assert environment.run("python", "-c", code, path=torch).stdout.strip() == "['torch']"
