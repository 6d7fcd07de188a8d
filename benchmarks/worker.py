"""The worker's side: one contender, which makes updates when the parent asks for them.

    python -m benchmarks.worker '{"contender": "ours_auto", "depth": 20, ...}'

Requests come as lines of JSON on stdin, answers go to stdout; what libraries print goes to stderr.
spec: contender, and for all but "matmul_*": depth, batch, folder (where `prepare` left its files); backend
and checkout where they are not TensorFlow and this one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import measure

WARM_UP = 4  # updates before the first turn: the first compiles, kernels choose in the next


class Turns:
    """Counts updates and stops between two of them until the parent asks for more.

    A contender calls `tick()` after each update; what the first answer should say goes to `facts`,
    and further requests it can answer to `commands`.
    """

    def __init__(self, warm_up: int = WARM_UP):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.facts: dict[str, Any] = {}
        self.commands: dict[str, Callable[[], dict[str, Any]]] = {
            "memory": lambda: {"mib": measure.memory_peak()}
        }
        self._warm = False
        self._begin(seconds=0.0, least=warm_up)

    def _begin(self, seconds: float, least: int = 1) -> None:
        self._seconds, self._least, self._updates = seconds, least, 0
        self._times = [time.perf_counter()]

    def tick(self) -> None:
        now = time.perf_counter()
        self._updates += 1
        if not self._warm:
            self._times.append(now)
        elapsed = now - self._times[0]
        if elapsed < self._seconds or self._updates < self._least:
            return
        if self._warm:
            self._answer({"updates": self._updates, "seconds": elapsed})
        else:
            self._warm = True
            waits = [b - a for a, b in zip(self._times, self._times[1:], strict=False)]
            self._answer({**self.facts, "warm_up_seconds": [round(t, 3) for t in waits]})
        self._wait()

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _wait(self) -> None:
        for line in iter(sys.stdin.readline, ""):
            request = json.loads(line)
            if request["command"] == "turn":
                self._begin(request["seconds"])
                return
            self._answer(self.commands[request["command"]]())
        self.leave()

    def leave(self) -> NoReturn:
        """End the process from wherever it is: `fit` and its threads would take their time."""
        sys.stderr.flush()
        os._exit(0)

    def forever(self, update: Callable[[], object]) -> NoReturn:
        """Make updates, each one call of `update`, until the parent closes the pipe."""
        while True:
            update()
            self.tick()

    def once(self, work: Callable[[], dict[str, Any]]) -> NoReturn:
        """Answer with the result of `work`, which is no contest."""
        self._answer(work())
        self.leave()


def _infer_onnx(spec: dict[str, Any], turns: Turns) -> NoReturn:
    """`onnx_float32`, `onnx_int8`: ONNX Runtime alone in its process, as where it serves."""
    import numpy as np
    import onnxruntime

    folder = Path(spec["folder"])
    name = "model.onnx" if spec["contender"] == "onnx_float32" else "model.int8.onnx"
    images = np.load(folder / "images.npy", mmap_mode="r")[: spec["batch"]].copy()
    session = onnxruntime.InferenceSession(
        folder / str(spec["depth"]) / name, providers=["CPUExecutionProvider"]
    )
    turns.forever(lambda: session.run(["probabilities", "class_id"], {"image": images}))


def main() -> NoReturn:
    spec = json.loads(sys.argv[1])
    turns = Turns()
    if spec["contender"].startswith("torch_"):
        from benchmarks import torch_nets

        torch_nets.contend(spec, turns)
    if spec["contender"].startswith("onnx_"):
        _infer_onnx(spec, turns)
    if spec["contender"].startswith("deployed_"):
        from benchmarks import deployed_nets

        deployed_nets.contend(spec, turns)
    if spec["contender"].startswith(("ours_", "stock_", "bare")):
        from benchmarks import training_nets

        training_nets.train(spec, turns)
    from benchmarks import keras_nets

    keras_nets.contend(spec, turns)


if __name__ == "__main__":
    main()
