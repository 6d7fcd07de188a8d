"""A sweep's driver: it gives runs to Ray, gives lost ones again, and watches.

What a run has done is in its folder alone. A worker or a node that dies, or this driver, takes nothing with
it: whoever comes next goes on from the newest checkpoint, and the lock of the run folder decides who may.
"""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from keras_resnet import console
from keras_resnet.errors import DIVERGED, USER_ERROR, UserError
from keras_resnet.runs import files
from keras_resnet.sweep import cluster, plan, run
from keras_resnet.sweep.plan import Run, Standing, standing
from keras_resnet.sweep.run import Event, Job
from keras_resnet.training.signals import Signals

MAX_LOSSES = 3  # in a row, without a new checkpoint between them
LOOK = 0.5  # seconds between two looks at what Ray has to tell
REFRESH = 2.0  # seconds between two looks at the run folders
END = run.END + 5  # seconds that all trainings have to end
TAIL = 4096  # bytes of a log in which its last line is looked for

State = Literal["waiting", "running", "held", "finished", "failed"]


@dataclasses.dataclass
class Entry:
    """A run as the driver knows it.

    Attributes:
        run: the run.
        job: how a worker trains it.
        at: how far it was when its folder was last looked at.
        state: waiting for a place, running on `node`, held by a process that is not ours, finished, or
            failed for the reason `why`.
        losses: deaths of its process since the checkpoint of update `saved`.
    """

    run: Run
    job: Job
    at: Standing
    state: State = "waiting"
    node: str = ""
    why: str = ""
    losses: int = 0
    saved: int = 0


class Watcher(Protocol):
    """Who is told what happens."""

    def event(self, text: str) -> None:
        """Something happened to a run."""

    def refresh(self, entries: Sequence[Entry]) -> None:
        """A look at all runs."""


def entries_of(runs: Sequence[Run], job_of: Callable[[Run], Job]) -> list[Entry]:
    """The runs as they stand before a sweep."""
    entries = []
    for member in runs:
        entry = Entry(member, job_of(member), standing(member))
        if entry.at.state == "finished":
            entry.state = "finished"
        elif entry.at.state == "refused":
            entry.state, entry.why = "failed", entry.at.why
        entries.append(entry)
    return entries


class Driver:
    """Runs a sweep's unfinished entries on the cluster that this process is connected to.

    Args:
        entries: what is to be done, in the order in which it begins.
        cpus: of one run.
        gpus: of one run.
        watcher: who is told.
    """

    def __init__(self, entries: Sequence[Entry], cpus: float, gpus: float, watcher: Watcher):
        import ray

        self.entries, self.watcher = entries, watcher
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run.train)
        self._under_way: dict[Any, Entry] = {}  # Ray's generator of events -> entry
        self._unfit: set[str] = set()
        self._looked = 0.0
        self._stopping = False

    def work(self) -> int:
        """Work until every run is finished or has failed; returns a signal that ended it before, or 0."""
        stopping = "stopping: every training saves a checkpoint; Ctrl-C again does not wait"
        with Signals(stopping) as signals:
            while any(entry.state in ("waiting", "running", "held") for entry in self.entries):
                self._begin()
                self._listen(LOOK)
                if signals.received:
                    self._end()
                    return signals.received
                if time.monotonic() - self._looked > REFRESH:
                    self._look()
        self._look()
        return 0

    def _begin(self) -> None:
        """Give Ray what may run. Ray keeps what finds no place yet, in this order."""
        given = {id(entry) for entry in self._under_way.values()}
        for entry in self.entries:
            if entry.state not in ("waiting", "held") or id(entry) in given:
                continue
            if _is_held(entry.run):
                if entry.state == "waiting":
                    self._tell(entry, "is trained by another process: waiting for it")
                entry.state, entry.node = "held", ""
                continue
            if entry.state == "held":
                entry.at, entry.state = standing(entry.run), "waiting"
                if entry.at.state == "finished":
                    self._finish(entry)
                    continue
            options: dict[str, Any] = {"scheduling_strategy": "SPREAD"}
            if self._unfit:
                options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._unfit)})"}
            self._under_way[self._task.options(**options).remote(entry.job)] = entry

    def _listen(self, seconds: float) -> None:
        """Take what Ray has to tell within some seconds."""
        import ray

        if not self._under_way:
            time.sleep(seconds)
            return
        ready, _ = ray.wait(list(self._under_way), num_returns=1, timeout=seconds)
        for generator in ready:
            entry = self._under_way[generator]
            try:
                self._take(entry, ray.get(next(generator)))
            except StopIteration:
                del self._under_way[generator]
            except ray.exceptions.RayError as error:
                del self._under_way[generator]
                self._ended(entry, None, f"its worker was lost ({_kind(error)})")

    def _take(self, entry: Entry, event: Event) -> None:
        name = cluster.names().get(event["node"], event["node"][:8])
        if event["kind"] == "unfit":
            self._unfit.add(event["node"])
            self.watcher.event(f"no runs for {name}: it {event['why']}")
        elif event["kind"] == "started":
            entry.state, entry.node, entry.at = "running", name, standing(entry.run)
            saved = plan.saved(entry.run)
            self._tell(
                entry, f"goes on from update {saved:,} on {name}" if saved else f"begins on {name}"
            )
        else:
            code = event["code"]
            died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            what = f"its process died ({died})" if code else "it ended without results"
            self._ended(entry, code, what)

    def _finish(self, entry: Entry) -> None:
        entry.state, entry.node = "finished", ""
        self._tell(entry, f"finished: test error {entry.at.test_error:.2f} %")

    def _ended(self, entry: Entry, code: int | None, what: str) -> None:
        """A training has ended with an exit code, or with its worker."""
        line = _last_line(entry.run)
        entry.at = standing(entry.run)
        if entry.at.state == "finished":  # whatever went wrong came after its end
            self._finish(entry)
        elif code == USER_ERROR and files.BUSY in line:
            entry.state, entry.node = "waiting", ""
        elif code in (USER_ERROR, DIVERGED):
            self._fail(entry, line or f"exit code {code}")
        elif self._stopping:
            entry.state, entry.node = "waiting", ""
        else:
            self._lose(entry, what, line if code else "")

    def _lose(self, entry: Entry, what: str, line: str) -> None:
        saved = plan.saved(entry.run)
        entry.losses = 1 if saved > entry.saved else entry.losses + 1
        entry.saved, where = saved, f" on {entry.node}" if entry.node else ""
        if entry.losses >= MAX_LOSSES:
            told = f", {entry.losses} times in a row at update {saved:,}; its last words: {line}"
            self._fail(entry, what + (told if line else told.partition(";")[0]))
            return
        entry.state, entry.node = "waiting", ""
        self._tell(entry, f"{what}{where}: goes on from update {saved:,}")

    def _fail(self, entry: Entry, why: str) -> None:
        entry.state, entry.node, entry.why = "failed", "", why
        self._tell(entry, f"failed: {why}")

    def _end(self) -> None:
        """End all trainings, each after a checkpoint."""
        import ray

        self._stopping = True
        for generator in self._under_way:
            ray.cancel(generator)
        limit = time.monotonic() + END
        while self._under_way and time.monotonic() < limit:
            self._listen(LOOK)
        self._look()
        for entry in self.entries:
            # One that another process trained, or whose end was not told in time.
            if entry.at.state == "finished" and entry.state != "finished":
                self._finish(entry)

    def _look(self) -> None:
        for entry in self.entries:
            if entry.state in ("running", "held"):
                at = standing(entry.run)
                entry.at = entry.at if at.state == "refused" else at
        self.watcher.refresh(self.entries)
        self._looked = time.monotonic()

    def _tell(self, entry: Entry, text: str) -> None:
        self.watcher.event(f"{entry.run.name}: {text}")


def _is_held(member: Run) -> bool:
    """Whether another process holds the run folder now."""
    if not files.exists(member.folder.path):
        return False
    try:
        with files.lock(member.folder.path):
            return False
    except UserError as error:
        return files.BUSY in str(error)


def _last_line(member: Run) -> str:
    """What a run's process said last, as it may be printed."""
    try:
        with open(member.log, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    told = [line.strip() for line in lines if line.strip()]
    return console.printable(told[-1].removeprefix("error: ")) if told else ""


def _kind(error: Exception) -> str:
    cause = getattr(error, "cause", None)
    return type(cause or error).__name__ + (f": {cause}" if cause else "")
