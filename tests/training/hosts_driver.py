"""One process of several: `python hosts_driver.py CASE` joins the others, does what CASE says, prints JSON."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from keras_resnet.commands import startup, terminal
from keras_resnet.errors import UserError


def main() -> None:
    startup.start_keras()
    from keras_resnet.training import hosts

    case = sys.argv[1]
    if case == "short":
        hosts.JOIN_SECONDS = 3.0
    hosts.join()
    k = hosts.index()
    match case:
        case "exchange":
            state = {
                "arrays": {"a": np.arange(5, dtype=np.float32), "b": np.zeros((2, 0), np.int64)},
                "rows": [{"step": 10**9, "loss": 0.1, "error": None}],
            }
            state = hosts.broadcast(state if hosts.is_first() else "not mine")
            with hosts.together():
                pass
            array = state["arrays"]["a"]
            told = [
                k,
                hosts.count(),
                hosts.agree(k + 1),
                state["rows"],
                array.tolist(),
                str(array.dtype),
            ]
            print(json.dumps([*told, state["arrays"]["b"].shape]), file=sys.stderr)
        case "error-0" | "error-1":
            with hosts.together():
                if k == int(case[-1]):
                    raise UserError("`data_dir` holds no CIFAR-10", exit_code=3)
            raise AssertionError("all have left")
        case "settings":
            hosts.check_same({"depth": 20, "mean": (1, 2), "learning_rate": 0.1 * (k + 1)})
        case "crash" | "death":
            if k == 0:
                time.sleep(1)
                if case == "death":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("a bug on process 0")
            hosts.broadcast(None)


if __name__ == "__main__":
    sys.exit(terminal.run(main))
