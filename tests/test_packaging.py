"""What is installed: every package that is imported, and one command."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Imported name -> name on PyPI, where they differ; None for what is used only where it is installed.
PACKAGES = {
    "PIL": "pillow", "tensorflow_datasets": "tensorflow-datasets", "ai_edge_litert": None,
    "google_crc32c": "google-crc32c",
}  # fmt: skip


def test_requirements_name_extras_that_exist() -> None:
    for path in REPOSITORY.glob("requirements*.txt"):
        for extras in re.findall(r"^-e \.\[(.*)\]", path.read_text(), re.MULTILINE):
            assert set(extras.split(",")) <= EXTRAS.keys()


def test_every_import_is_declared() -> None:
    requirements = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
    declared = {re.split(r"[<>=\[]", r)[0] for r in requirements} | {None, "keras_resnet"}
    for path in (REPOSITORY / "keras_resnet").rglob("*.py"):
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
        top = {name.split(".")[0] for name in found} - sys.stdlib_module_names
        assert {PACKAGES.get(name, name) for name in top} <= declared, path


def test_the_command_is_the_packages() -> None:
    assert PROJECT["scripts"] == {"keras-resnet": "keras_resnet.__main__:entry_point"}
