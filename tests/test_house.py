"""Imports point down, make no circle, and are declared in pyproject.toml (docs/design.md)."""

import ast
import graphlib
import re
import sys
import tomllib

from tests.helpers import REPOSITORY

ROOT = REPOSITORY / "keras_resnet"
# From the ground up. A module imports from its own folder and from those before it.
FLOORS = (
    "_version", "errors", "console", "data", "nets", "recipes", "runs", "inference", "training", "convert",
    "export", "report", "sweep", "commands", "__main__",
)  # fmt: skip
# Imported name -> name on PyPI, where they differ.
PACKAGES = {
    "PIL": "pillow", "tensorflow_datasets": "tensorflow-datasets", "google_crc32c": "google-crc32c",
}  # fmt: skip


def imports(path):
    """The names that a module imports, at its top or inside a function."""
    tree = ast.parse(path.read_text())
    for block in [node for node in tree.body if isinstance(node, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            tree.body.remove(block)  # nothing of it is imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name):
    """The module of this package that an imported name lies in: its path without .py."""
    place = REPOSITORY.joinpath(*name.split("."))
    for path in (place, place / "__init__", place.parent, place.parent / "__init__"):
        if path.with_suffix(".py").is_file():
            return path
    raise AssertionError(name)


def floor(path):
    return FLOORS.index(path.relative_to(ROOT).parts[0].removesuffix(".py"))


def test_imports_point_down_and_make_no_circle():
    graph = {}
    for path in ROOT.rglob("*.py"):
        if path != ROOT / "__init__.py":  # the face: it hands names on
            names = [name for name in imports(path) if name.startswith("keras_resnet.")]
            graph[path.with_suffix("")] = {module_of(name) for name in names} - {ROOT / "__init__"}
    assert len(graph) > 60
    for path, targets in graph.items():
        assert [target for target in targets if floor(target) > floor(path)] == [], path
    graphlib.TopologicalSorter(graph).prepare()


def test_every_import_is_declared():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    declared = {re.split(r"[<>=\[]", r)[0] for r in requirements} | {"keras_resnet"}
    for path in ROOT.rglob("*.py"):
        top = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
        assert {PACKAGES.get(name, name) for name in top} <= declared, path
