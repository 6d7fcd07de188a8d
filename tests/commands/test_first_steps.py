"""What a newcomer tries first: commands answer at once, in words that lead on."""

import pytest

from keras_resnet.__main__ import COMMANDS
from tests.helpers import call, python

# Ends with code 99 where Keras was imported.
WITHOUT_KERAS = (
    "import sys; from keras_resnet.__main__ import entry_point; code = entry_point(); "
    "sys.exit(99 if 'keras' in sys.modules else code)"
)


def test_without_a_command_all_are_listed():
    done = python("-c", WITHOUT_KERAS)
    assert done.returncode == 0 and not done.stderr
    for name, text in COMMANDS.items():
        assert f"{name} " in done.stdout and text in done.stdout


@pytest.mark.parametrize(
    ("command", "absent", "told"),
    [
        ("report nothere", "", "Received: nothere, which does not exist"),
        ("report results", "matplotlib", "pip install -e '.[report]'"),
        ("train --depth 57", "", "error: --depth must be 6n+2"),
    ],
)
def test_what_cannot_be_is_told_before_keras_starts(command, absent, told):
    done = python("-c", WITHOUT_KERAS, *command.split(), absent=absent)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert told in done.stderr


def test_a_mistake_leads_to_what_is_right(refused):
    for command, expected in (
        ("train --epochs 10", "1 epoch of CIFAR = 352 updates: give --steps 3520"),
        ("train --resume", "the same command again resumes an interrupted run"),
        ("train --n 9", "give --depth 56"),
        ("train --shortcut none", "invalid choice: 'none'"),
        ("sweep --depth 20 56 --epochs=182", "give --steps 64064"),
        ("train --dept 20", "--dept is not a flag; did you mean --depth?"),
        ("train cifar10", "unexpected: cifar10"),
        ("predcit cat.png", "predcit is not a command; did you mean predict?"),
        ("--depth 20", "--depth is not a flag"),
    ):
        assert expected in refused(*command.split())


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        ("train", {"steps": 64_000, "warmup-steps": 0}),
        ("train --depth=110", {"steps": 64_000, "warmup-steps": 400}),
        ("sweep --recipe fast --depth 20 56", {"steps": 10_000, "warmup-steps": 625}),
    ],
)
def test_help_shows_the_numbers_that_a_run_would_have(flags, numbers, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call(*flags.split(), "--help") == 0
    text = capsys.readouterr().out
    for name, value in numbers.items():
        _, _, after = text.rpartition(f"--{name} STEPS")
        assert f"(default: {value})" in " ".join(after.split())[:130]
    assert all(f"\n{group}:\n" in text for group in ("net", "data", "recipe", "run", "output"))


def test_each_help_fits_into_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in COMMANDS:
        assert call(command, "--help") == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80, command
