"""The order of the house: arrows point down, and there is no circle (docs/design.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import keras_resnet

ROOT = Path(keras_resnet.__file__).parent
# From the ground up. A module imports from its own folder and from those before it.
FLOORS = (
    "_version", "imports", "interrupts", "errors", "console", "data", "nets", "recipes", "runs", "inference",
    "training", "export", "convert", "report", "sweep", "commands", "__main__",
)  # fmt: skip


def modules() -> dict[str, set[str]]:
    """Module -> the modules of this package that it imports, at its top or inside a function."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
    }
    names.pop("__init__")  # the face: it hands names on
    arrows = {}
    for name, path in names.items():
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("keras_resnet"):
                parent = (node.module or "").removeprefix("keras_resnet").lstrip(".")
                for alias in node.names:
                    below = f"{parent}.{alias.name}".lstrip(".")
                    found.add(below if below in names else parent or below)
            elif isinstance(node, ast.Import):
                found |= {
                    alias.name.removeprefix("keras_resnet").lstrip(".")
                    for alias in node.names
                    if alias.name.startswith("keras_resnet")
                }
        arrows[name] = {
            f"{target}.__init__" if f"{target}.__init__" in names else target for target in found
        }
    return arrows


def test_every_module_stands_on_a_known_floor() -> None:
    assert {name.partition(".")[0] for name in modules()} == set(FLOORS)


def test_no_arrow_points_up() -> None:
    up = [
        f"{name} -> {target or 'keras_resnet'}"
        for name, targets in modules().items()
        for target in targets
        if not target
        or FLOORS.index(target.partition(".")[0]) > FLOORS.index(name.partition(".")[0])
    ]
    assert up == []


def test_no_circle() -> None:
    arrows, done = modules(), set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        if name not in done:
            for target in arrows[name]:
                visit(target, (*path, name))
            done.add(name)

    for name in arrows:
        visit(name, ())
