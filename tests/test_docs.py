"""What README.md and docs/quickstart.ipynb tell a reader to run, run as written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import REPOSITORY

README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout, where commands may write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("train.py", "export.py", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def run(command: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_first_command_of_the_readme_prints_what_it_says(folder: Path) -> None:
    command = blocks("bash")[0].strip().splitlines()[-1]
    assert run(command, folder) == blocks("")[0]


def test_the_python_of_the_readme_runs(folder: Path) -> None:
    (folder / "readme.py").write_text(blocks("python")[0])
    assert run("python readme.py", folder).splitlines()[-1] == "ship"


@pytest.mark.slow
def test_the_other_commands_of_the_readme_run(folder: Path) -> None:
    lines = [line for block in blocks("bash")[1:-1] for line in block.strip().splitlines()]
    assert len(lines) >= 6
    for line in lines:
        command = line.split("  #")[0].strip()
        if command.startswith("python train.py"):
            command += " --steps 20 --eval-every 20"  # the last of two equal flags counts
            command += "" if "synthetic" in command else " --depth 8"
            needs_data = "synthetic" not in command and "TFDS_DATA_DIR" not in os.environ
            if needs_data or "photos" in command:  # those: tests/data/test_own_images.py
                continue
        if "--serve" in command:  # it would serve until Ctrl-C
            command = command.replace(" --serve", "")
        run(command, folder)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "docs/quickstart.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()  # raises where a cell does
    wrong = "".join(output.get("text", "") for output in notebook.cells[-2].outputs)
    assert re.search(r"wrong: [0-5] of 60", wrong), wrong
