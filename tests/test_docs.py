"""What README.md and docs/quickstart.ipynb tell a reader to run, run as written."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_resnet.__main__ import COMMANDS
from keras_resnet.commands import flags
from keras_resnet.export.verify import LOADERS
from keras_resnet.recipes import RECIPES
from tests.helpers import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
PAGES = [REPOSITORY / "README.md", *sorted(REPOSITORY.glob("docs/*.md"))]


def blocks(language, text=README):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that looks like a checkout, where commands may write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("train.py", "export.py", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    return folder


def run(command, folder):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    options = {"capture_output": True, "text": True, "timeout": 600}
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_first_command_of_the_readme_prints_what_it_says(folder):
    command = blocks("bash")[0].strip().splitlines()[-1]
    assert run(command, folder) == blocks("")[0]


def test_the_python_of_the_readme_runs(folder):
    (folder / "readme.py").write_text(blocks("python")[0])
    assert run("python readme.py", folder).splitlines()[-1] == "ship"


@pytest.mark.slow
def test_the_other_commands_of_the_readme_run(folder):
    lines = [line for block in blocks("bash")[1:-1] for line in block.strip().splitlines()]
    assert len(lines) >= 6
    for line in lines:
        command = line.split("  #")[0].strip()
        if command.startswith("python train.py"):
            command += " --steps 20 --val-size 100"  # the last of two equal flags counts
            command += "" if "synthetic" in command else " --depth 8"
            needs_data = "synthetic" not in command and "TFDS_DATA_DIR" not in os.environ
            if needs_data or "photos" in command:  # those: tests/data/test_own_images.py
                continue
        if "--serve" in command:  # it would serve until Ctrl-C
            command = command.replace(" --serve", "")
        run(command, folder)


class Parsed(Exception):
    """Raised once a command has read its flags."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_flags_of_every_command_of_a_page_exist(page, monkeypatch):
    """Also of commands that take hours or a cluster, and that no test runs."""
    parse = flags.ArgumentParser.parse_args

    def parse_and_stop(parser, arguments=None):
        parse(parser, arguments)
        raise Parsed

    monkeypatch.setattr(flags.ArgumentParser, "parse_args", parse_and_stop)
    command = r"^ *(?:[A-Z_]+=\S+ .*)?(?:python |keras-resnet )(.*)$"
    for line in re.findall(command, page.read_text(), re.MULTILINE):
        name, *words = shlex.split(line.rstrip("&"), comments=True)
        name = name.removesuffix(".py")
        if name in COMMANDS and "--config" not in words:  # whose file would be read first
            with pytest.raises(Parsed):
                importlib.import_module(f"keras_resnet.commands.{name}").main(words)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "docs/quickstart.ipynb", as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place)
    client.execute()  # raises where a cell does
    wrong = "".join(output.get("text", "") for output in notebook.cells[-2].outputs)
    assert re.search(r"wrong: [0-5] of 60", wrong), wrong


@pytest.mark.parametrize("document", ["README.md", "docs/results.md"])
def test_the_documents_give_the_errors_of_the_stored_runs(document):
    """Every row of a net in a table that has a recipe, or a column per unchanged recipe."""
    known = {}
    for row in json.loads((REPOSITORY / "results/report/results.json").read_text())["rows"]:
        spread = f" ± {row['test_error_std']:.2f}" if row["runs"] > 1 else ""
        kind = {"resnet": "ResNet", "plain": "Plain"}[row["model"]]
        error = f"{row['test_error_mean']:.2f}{spread}"
        if row["recipe_text"] in RECIPES or document != "README.md":
            known[f"{kind}-{row['depth']}", row["recipe_text"]] = error
    heads = []
    found = {}
    for line in (REPOSITORY / document).read_text().splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if line.startswith("| net |"):
            heads = cells
        for head, cell in zip(heads, cells, strict=False):
            if cells[0].startswith(("ResNet-", "Plain-")) and len(cells) == len(heads) and cell:
                if head in RECIPES:
                    found[cells[0], head] = cell
                elif head == "test error":
                    found[cells[0], cells[heads.index("recipe")]] = cell
    assert found == known


@pytest.mark.slow
def test_docs_serving(folder):
    """Its commands but for servers and their clients; each file that a server gets answers the request."""
    pytest.importorskip("openvino")
    text = (REPOSITORY / "docs/serving.md").read_text()
    (folder / "request.py").write_text(blocks("python", text)[1])
    lines = [line for block in blocks("bash", text) for line in block.strip().splitlines()]
    commands = [line for line in lines if not line.startswith(("pip", "docker", "curl", "uvicorn"))]
    printed = [run(command, folder) for command in ("python request.py", *commands)]
    assert len(commands) == 7 and "shape: (-1, 32, 32, 3)" in "".join(printed)
    (tensor,) = json.loads((folder / "request.json").read_text())["inputs"]
    images = np.array(tensor["data"], tensor["datatype"].lower()).reshape(tensor["shape"])
    instances = json.loads((folder / "tensorflow.json").read_text())["instances"]
    np.testing.assert_array_equal(images, instances)
    for name, file in {
        "saved_model": "serving/resnet20/1", "openvino_model": "ovms/resnet20/1",
        "model.onnx": "triton/resnet20/1/model.onnx",
    }.items():  # fmt: skip
        assert tensor["name"] == "image" and LOADERS[name](folder / file)(images)["class_id"] == 8
    assert LOADERS["model.onnx"](folder / "fixed.onnx")(images)["class_id"] == 8
