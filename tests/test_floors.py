"""Upper floors import lower ones, never the other way or sideways, and no modules import in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FLOORS = {
    "unitalking_data": 1,
    "kit": 2,
    "media": 2,
    "model": 3,
    "perception": 3,
    "engine": 4,
    "curation": 5,
    "train": 5,
    "pipelines": 6,
    "benchmarks": 7,
}
RAY_FREE = ("unitalking_data", "kit", "media", "model", "perception")


def imports() -> dict[str, set[str]]:
    """Project modules imported by each project module, function-level imports included."""
    files = [path for floor in FLOORS for path in (REPOSITORY / floor).rglob("*.py")]
    modules = {
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path for path in files
    }
    graph = {}
    for module, path in modules.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        graph[module] = found
    return {module: {name for name in found if name in modules and name != module} for module, found in graph.items()}


def test_no_module_imports_a_higher_or_neighbouring_floor():
    wrong = []
    for module, found in imports().items():
        here = module.split(".")[0]
        for name in found:
            there = name.split(".")[0]
            if there != here and FLOORS[there] >= FLOORS[here]:
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_no_circles():
    graph, done, path = imports(), set(), []

    def visit(module: str) -> None:
        assert module not in path, f"circle: {' → '.join([*path[path.index(module) :], module])}"
        if module in done:
            return
        path.append(module)
        for name in graph[module]:
            # a package's __init__ that re-exports its own modules is no circle
            if not module.startswith(name + "."):
                visit(name)
        path.pop()
        done.add(module)

    for module in graph:
        visit(module)


def test_perception_knows_arrays_alone():
    """Networks and measures know neither a stage nor what an opened clip is."""
    for path in (REPOSITORY / "perception").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
        names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        names |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not any(name.split(".")[0] == "engine" for name in names), path
        assert not names & {"ClipMedia", "OpenClip", "Stage", "StageConfig"}, path


def test_lower_floors_know_no_ray():
    for folder in RAY_FREE:
        for path in (REPOSITORY / folder).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            names = [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
            names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
            assert not any(name.split(".")[0] == "ray" for name in names), path
