"""What a newcomer tries first: commands answer at once, in words that lead on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_resnet.__main__ import COMMANDS, main
from keras_resnet.commands import terminal
from tests.helpers import make_net

REPOSITORY = Path(__file__).resolve().parents[2]


def call(*arguments: object) -> int:
    try:
        return terminal.run(lambda: main([str(a) for a in arguments]))
    except SystemExit as stop:
        return int(stop.code or 0)


def without_keras(*arguments: str, absent: str = "") -> subprocess.CompletedProcess:
    """Run the command in a process that ends with code 99 where Keras was imported."""
    code = (
        "import sys; sys.argv = ['keras-resnet']\n"
        f"sys.modules.update({{m: None for m in {absent.split()}}})\n"
        "from keras_resnet.__main__ import main; from keras_resnet.commands import terminal\n"
        f"code = terminal.run(lambda: main({list(arguments)}))\n"
        "sys.exit(99 if 'keras' in sys.modules else code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )


def test_without_a_command_all_are_listed() -> None:
    done = without_keras()
    assert done.returncode == 0 and not done.stderr
    for name, text in COMMANDS.items():
        assert f"{name} " in done.stdout and text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "absent", "code", "told"),
    [
        (["predict", "nofile.png"], "", 1, "nofile.png could not be read as an image: there is no"),
        (["report", "nothere"], "", 2, "Received: nothere, which does not exist"),
        (
            ["report", "results"],
            "matplotlib",
            2,
            "pip install matplotlib, or this package with its",
        ),
        (["train", "--depth", "57"], "", 2, "error: --depth must be 6n+2"),
    ],
)
def test_what_cannot_be_is_told_before_keras_starts(
    arguments: list[str], absent: str, code: int, told: str
) -> None:
    done = without_keras(*arguments, absent=absent)
    assert done.returncode == code and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr


def test_a_checkpoint_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--depth", 20, "--output", tmp_path / "net.keras"]
    assert call("convert", tmp_path / "nothere.safetensors", *flags) == 2
    assert "which does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "warmup"), [("paper", 0), ("fast", 1000)])
def test_help_shows_the_numbers_that_a_run_would_have(
    recipe: str, warmup: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert call("train", "--recipe", recipe, "--help") == 0
    text = capsys.readouterr().out
    _, _, after = text.rpartition("--warmup-steps STEPS")
    assert f"(default: {warmup})" in " ".join(after.split())[:120]
    wide = [line for line in text.splitlines() if len(line) > 80]
    assert not [line for line in wide if "{" not in line], "choices are one word"


@pytest.mark.slow
def test_an_export_to_litert_says_nothing_on_stderr(tmp_path: Path) -> None:
    make_net().save(tmp_path / "net.keras")
    done = subprocess.run(
        [sys.executable, "export.py", str(tmp_path / "net.keras"), "--formats", "litert"],
        cwd=REPOSITORY, env={k: v for k, v in os.environ.items() if not k.startswith("TF_")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
