"""What is installed: the same ranges everywhere, all data files, one command."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def test_requirements_name_extras_that_exist() -> None:
    for path in REPOSITORY.glob("requirements*.txt"):
        for extras in re.findall(r"^-e \.\[(.*)\]", path.read_text(), re.MULTILINE):
            assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_every_import_is_declared() -> None:
    import ast
    import sys

    names = {
        "PIL": "pillow", "tensorflow_datasets": "tensorflow-datasets", "ai_edge_litert": None,
        "google_crc32c": "google-crc32c",
    }  # fmt: skip
    declared = {
        re.split(r"[<>=\[]", requirement)[0]
        for requirement in (
            *PROJECT["dependencies"],
            *(r for extra in PROJECT["optional-dependencies"].values() for r in extra),
        )
    }
    for path in (REPOSITORY / "keras_resnet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            for module in found:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top == "keras_resnet":
                    continue
                package = names.get(top, top)
                assert package is None or package in declared, f"{path.name} imports {top}"


def test_the_command_is_the_packages() -> None:
    assert PROJECT["scripts"] == {"keras-resnet": "keras_resnet.__main__:entry_point"}
