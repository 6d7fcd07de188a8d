"""One process of several: `python hosts_driver.py CASE` joins the others and does what CASE says."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from keras_resnet.commands import startup, terminal
from keras_resnet.errors import UserError


def refuse() -> None:
    raise UserError("`data_dir` holds no CIFAR-10", exit_code=3)


def main() -> None:
    startup.start_keras()
    from keras_resnet.training import hosts

    case = sys.argv[1]
    if case == "short":
        hosts.JOIN_SECONDS = 3.0
    hosts.join()
    first = hosts.is_first()
    match case:
        case "exchange":
            value = {"a": np.arange(5, dtype=np.float32), "rows": [(10**9, 0.1, None)]}
            value = hosts.broadcast(value if first else "not mine")
            print(hosts.count(), hosts.agree(7 if first else 9), value, file=sys.stderr)
        case "error":
            hosts.on_first(refuse)
            raise AssertionError("all have left")
        case "settings":
            hosts.check_same({"depth": 20, "mean": (1, 2), "learning_rate": 0.1 if first else 0.2})
        case "crash" | "death":
            if first:
                time.sleep(1)
                if case == "death":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise RuntimeError("a bug on process 0")
            hosts.broadcast(None)


if __name__ == "__main__":
    sys.exit(terminal.run(main))
