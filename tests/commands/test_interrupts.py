"""Ctrl-C before the work begins: one line, exit code 130. Real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
COMMANDS = {
    "train.py": ["train.py", "--dataset", "synthetic"],
    "export.py": ["export.py", "examples"],
    "-m": ["-m", "keras_resnet", "evaluate"],
}


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    return subprocess.Popen(
        [sys.executable, *arguments, *(["--output-dir", str(tmp_path)] if "train.py" in arguments else [])],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux shows what is loaded")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("library", ["numpy", "tensorflow", "h5py"])
def test_ctrl_c_while_a_library_is_imported(library: str, command: str, tmp_path: Path) -> None:
    process = start(tmp_path, *COMMANDS[command])
    maps = Path(f"/proc/{process.pid}/maps")
    end = time.monotonic() + 60
    while f"site-packages/{library}" not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_what_is_ignored_stays_ignored() -> None:
    """As under `nohup`, or in the background of a script."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv = ['keras-resnet']; "
        "import keras_resnet; from keras_resnet.__main__ import main; "
        "assert main(['models', '--depth', '8']) == 0; "
        "assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
