"""The order of the house: imports point down, and there is no circle (docs/design.md)."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import keras_resnet

ROOT = Path(keras_resnet.__file__).parent
# From the ground up. A module imports from its own folder and from those before it.
FLOORS = (
    "_version", "errors", "console", "data", "nets", "recipes", "runs", "inference", "training", "convert",
    "export", "report", "sweep", "commands", "__main__",
)  # fmt: skip


def imports() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports, at its top or inside a function."""
    paths = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in ROOT.rglob("*.py")}
    del paths["__init__"]  # the face: it hands names on
    found: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        for block in [node for node in tree.body if isinstance(node, ast.If)]:
            if ast.unparse(block.test) == "TYPE_CHECKING":
                tree.body.remove(block)  # nothing of it is imported
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                targets = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for target in targets:
                package, _, target = target.partition(".")
                if package == "keras_resnet":
                    places = (target, f"{target}.__init__", target.rpartition(".")[0])
                    found[name].add(
                        next((p for p in places if p in paths), f"{places[2]}.__init__")
                    )
    return found


def floor(module: str) -> int:
    return FLOORS.index(module.partition(".")[0])


def test_no_import_points_up() -> None:
    assert [
        f"{name} -> {target}"
        for name, targets in imports().items()
        for target in targets
        if floor(target) > floor(name)
    ] == []


def test_no_circle() -> None:
    graphlib.TopologicalSorter(imports()).prepare()
