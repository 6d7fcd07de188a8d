"""What a run tells, seen on a real terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import re
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def on_a_terminal(code: str, columns: int = 80) -> str:
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 4096):
            text += part
    except OSError:  # its end, on Linux
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0, text.decode()
    return text.decode()


def test_the_time_left_is_that_of_updates_alone() -> None:
    """Compiling takes a second here, an update 5 ms; bar and text agree on what is left."""
    code = """if True:
        import time
        now = [0.0]
        time.perf_counter = lambda: now[0]  # the clock's; what else runs here is none of its business
        from keras_resnet.runs.config import TrainConfig
        from keras_resnet.runs.run import runs_of
        from keras_resnet.training.progress import Progress, ProgressBar
        progress = Progress(runs_of(TrainConfig(steps=4_000, batch_size=10, runs=3))[0])
        bar = ProgressBar(progress)
        for step in range(1, 61):
            now[0] += 1.0 if step == 1 else 0.005
            time.sleep(0.3 if step == 1 else 0.01)  # the bar is drawn ten times a second
            progress.count(step)
            bar.on_train_batch_end(step - 1, {"loss": 1.0})
            progress.resume_clock()
        bar.close()
    """
    text = " ".join(on_a_terminal(code).split())
    assert " 1/4000" in text, "the bar was drawn"
    told = re.search(r"will take about (\d+) s \((\d+) s with the later seeds", text)
    assert told is not None, text
    assert int(told[2]) == pytest.approx(3 * int(told[1]), abs=2)
    before, _, after = text.partition("first 20 updates")
    assert "left" not in before, "no time until one is known"
    left = [int(n) for n in re.findall(r"(\d+) s left", after)]
    assert left and all(abs(n - int(told[1])) < 0.3 * int(told[1]) for n in left), (told[1], left)
