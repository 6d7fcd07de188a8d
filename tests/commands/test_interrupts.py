"""Signals while a command runs: one line, exit code 128 + n. Real processes, real signals."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.helpers import python, start_python


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux shows what is loaded")
@pytest.mark.parametrize(
    ("library", "signum", "name"),
    [("tensorflow", signal.SIGINT, "Ctrl-C"), ("h5py", signal.SIGHUP, "SIGHUP")],
)
def test_a_signal_while_a_library_is_imported(library, signum, name, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    words = ("train.py", "--dataset", "synthetic", "--output-dir", tmp_path)
    process = start_python(*words, env=environment)
    maps = Path(f"/proc/{process.pid}/maps")
    end = time.monotonic() + 60
    while f"site-packages/{library}" not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signum)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + signum, f"stopped by {name}\n")
    assert not list(tmp_path.iterdir())


def test_what_a_library_makes_of_ctrl_c():
    """It may replace the KeyboardInterrupt, as NumPy does: the command ends all the same."""
    code = (
        "import os, signal, sys; from keras_resnet.commands import terminal\n"
        "def command():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        raise ImportError('numpy')\n"
        "sys.exit(terminal.run(command))"
    )
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def test_what_is_ignored_stays_ignored():
    """As under `nohup`, or in the background of a script."""
    code = (
        "import signal; from keras_resnet.commands import terminal\n"
        "signals = signal.SIGINT, signal.SIGHUP\n"
        "for signum in signals: signal.signal(signum, signal.SIG_IGN)\n"
        "look = lambda: all(signal.getsignal(s) is signal.SIG_IGN for s in signals)\n"
        "assert terminal.run(look) == 1 and look()\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
