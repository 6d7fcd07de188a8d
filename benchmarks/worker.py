"""The process of one contender: it makes updates when `timing.Worker` asks for them.

A request is a line on stdin, the seconds of a turn. Answers are lines of JSON on stdout; what libraries
print goes to stderr.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

# Updates before the first turn: the first compiles, some kernels are chosen in the next.
WARM_UP = 4


class Turns:
    """Counts updates, and waits between two of them until the next turn is asked for."""

    def __init__(self, started: float):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.facts: dict[str, Any] = {}  # the first answer; a contender adds to it
        self._started = started
        self._warm = False
        self._seconds, self._updates, self._begun = 0.0, 0, 0.0

    def count_update(self) -> None:
        """To be called after each update."""
        now = time.perf_counter()
        self._updates += 1
        if not self._warm:
            if self._updates == 1:
                seconds = time.time() - self._started
                self.facts["seconds_to_first_update"] = round(seconds, 1)
            if self._updates < WARM_UP:
                return
            self._warm = True
            self.answer(self.facts)
        elif now - self._begun < self._seconds:
            return
        else:
            self.answer({"updates": self._updates, "seconds": now - self._begun})
        request = sys.stdin.readline()
        if not request:
            os._exit(0)  # `fit` and its threads would take their time
        self._seconds, self._updates, self._begun = float(request), 0, time.perf_counter()

    def answer(self, answer: Mapping[str, Any]) -> None:
        """Send a line to `timing.Worker`."""
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def repeat(self, update: Callable[[], object]) -> NoReturn:
        """Make updates, each one call of `update`, until the pipe is closed."""
        while True:
            update()
            self.count_update()


def main() -> None:
    spec = json.loads(sys.argv[1])
    if "checkout" in spec:  # its keras_resnet comes before ours
        sys.path.insert(0, spec["checkout"])
    turns = Turns(spec["started"])
    importlib.import_module(f"benchmarks.contenders.{spec['contender']}").run(spec, turns)


if __name__ == "__main__":
    main()
