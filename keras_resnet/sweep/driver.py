"""The driver of a sweep: it gives the runs to Ray, gives those that are lost to Ray again, and watches.

What a run has done is in its folder alone. Where a worker, a node or the driver dies, the next process goes
on from the newest checkpoint, and the lock of the run folder sees to it that only one trains.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence

from keras_resnet import console
from keras_resnet.errors import DIVERGED, USER_ERROR, UserError
from keras_resnet.runs import files
from keras_resnet.sweep import cluster, task
from keras_resnet.sweep.plan import SweepRun, count_slots
from keras_resnet.sweep.table import Lines
from keras_resnet.sweep.task import Outcome
from keras_resnet.training.signals import Signals

MAX_LOSSES = 3  # in a row, without a new checkpoint between them
WAIT = 0.5  # seconds between two questions to Ray
LOOK = 2.0  # seconds between two looks at the run folders
END = task.END + 4  # seconds that all trainings have to end in
STOPPING = "stopping: every training saves a checkpoint; a second signal does not wait"
ADVICE = "give a smaller `learning_rate` or more `warmup_steps`, with another `name`"


class Driver:
    """Trains the unfinished runs on the Ray cluster that this process is connected to.

    Args:
        runs: the runs, in the order in which they begin.
        share: what one run takes of a node: `{"CPU": 1.0, "GPU": 0.25}`.
        shown: shows what happens.
    """

    def __init__(self, runs: Sequence[SweepRun], share: Mapping[str, float], shown: Lines):
        import ray

        self.runs, self.share, self.shown = runs, share, shown
        resources = dict(share)
        self._train = ray.remote(
            num_cpus=resources.pop("CPU", 0),
            num_gpus=resources.pop("GPU", 0),
            memory=resources.pop("memory", None),
            resources=resources,
            scheduling_strategy="SPREAD",
            max_retries=0,
        )(task.train)
        self._unfit_nodes: list[str] = []
        self._stopping = False

    def work(self) -> int:
        """Work until every run is finished or has failed; returns the signal that ended it earlier, or 0."""
        looked = 0.0
        with Signals(STOPPING) as signals:
            while any(run.state not in ("finished", "failed") for run in self.runs):
                self._submit()
                self._collect()
                if signals.received:
                    self._stop()
                    break
                if time.monotonic() - looked > LOOK:
                    self._look()
                    looked = time.monotonic()
        self._look()
        return signals.received

    def _submit(self) -> None:
        """Give Ray the runs that may train. Those without a place wait there, in this order."""
        options = {}
        if self._unfit_nodes:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._unfit_nodes)})"}
        for run in self.runs:
            if run.task is not None or run.state not in ("waiting", "held"):
                continue
            if _is_held(run):
                if run.state == "waiting":
                    self._print(run, "another process trains it: waiting for that one")
                run.state = "held"
                continue
            if run.state == "held":
                run.state = "waiting"
                run.look()
                if run.state != "waiting":
                    self._print_end(run)
                    continue
            run.log.parent.mkdir(parents=True, exist_ok=True)
            run.log_bytes = run.log.stat().st_size if run.log.exists() else 0
            run.task = self._train.options(**options).remote(run.job)

    def _collect(self) -> None:
        """Take the outcome of a task that ends within some time."""
        import ray

        tasks = {run.task: run for run in self.runs if run.task is not None}
        if not tasks:
            time.sleep(WAIT)
            return
        for ref in ray.wait(list(tasks), num_returns=1, timeout=WAIT)[0]:
            run = tasks[ref]
            self._notice_start(run)
            run.task = None
            try:
                outcome: Outcome = ray.get(ref, timeout=WAIT)
            except ray.exceptions.RayError as error:
                self._end(run, None, f"its worker was lost ({type(error).__name__})")
                continue
            code = outcome["code"]
            if not outcome["problem"]:
                reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                self._end(run, code, f"its process ended ({reason})")
            elif outcome["node"] not in self._unfit_nodes:
                self._exclude(outcome)

    def _exclude(self, outcome: Outcome) -> None:
        """Give no more runs to a node that cannot train them.

        Raises:
            UserError: where it was the last one.
        """
        self._unfit_nodes.append(outcome["node"])
        reason = f"{outcome['host']} {outcome['problem']}"
        nodes = cluster.living_nodes()
        fit = [nodes[node] for node in nodes if node not in self._unfit_nodes]
        if not count_slots(fit, self.share) and all(run.state != "running" for run in self.runs):
            raise UserError(
                "a node must see the output folder, its locks and the data, and have this package. No node "
                f"does; the last one: {reason}. Name shared folders with `output_dir` and `data_dir`; "
                "`train` downloads a data set, a sweep does not"
            )
        self.shown.event(f"no runs for a node: {reason}")

    def _end(self, run: SweepRun, code: int | None, what: str) -> None:
        """The training of a run has ended: with an exit code, or None where its worker was lost."""
        lines = run.log.read_text(errors="replace").split("\n") if run.log.exists() else []
        written = [console.printable(line) for line in lines if line.strip()]
        line = written[-1].removeprefix("error: ") if written else ""
        run.state = "waiting"
        run.look()
        if run.state != "waiting":  # finished: whatever went wrong came after that
            self._print_end(run)
        elif code == DIVERGED:
            reason = line.partition(": training has diverged")[0]
            run.state, run.why = "failed", f"{reason}: it has diverged; {ADVICE}"
            run.diverged.write_text(f"{run.why}\n")
            self._print_end(run)
        elif code == USER_ERROR and files.BUSY not in line:
            run.state, run.why = "failed", line
            self._print_end(run)
        elif code != USER_ERROR and not self._stopping:
            run.losses = 1 if run.saved > run.lost_at else run.losses + 1
            run.lost_at = run.saved
            if run.losses < MAX_LOSSES:
                self._print(run, f"{what}; it goes on from update {run.saved:,}")
                return
            what += f", {run.losses} times in a row at update {run.saved:,}"
            run.state, run.why = "failed", f"{what}; its last line: {line}"
            self._print_end(run)

    def _stop(self) -> None:
        """End all trainings, each after a checkpoint."""
        import ray

        self._stopping = True
        limit = time.monotonic() + END
        for run in self.runs:
            if run.task is not None:
                ray.cancel(run.task)
        while any(run.task is not None for run in self.runs) and time.monotonic() < limit:
            self._collect()
        for run in self.runs:
            if run.task is not None:
                ray.cancel(run.task, force=True)
            if run.state not in ("finished", "failed"):
                run.look()
                if run.state == "finished":
                    self._print_end(run)

    def _look(self) -> None:
        for run in self.runs:
            self._notice_start(run)
            state = run.state
            if state in ("running", "held"):
                run.look()
                run.state = state  # until its task has ended
        self.shown.refresh()

    def _notice_start(self, run: SweepRun) -> None:
        """See in its log whether a run was started, and where."""
        if run.task is None or run.state != "waiting" or not run.log.exists():
            return
        with open(run.log, "rb") as log:
            log.seek(run.log_bytes)
            header = console.printable(log.readline().decode(errors="replace").strip())
        if header:
            run.state, run.host = "running", header.rpartition(" on ")[2]
            begins = f"goes on from update {run.saved:,}" if run.saved else "begins"
            self._print(run, f"{begins} on {run.host}")

    def _print_end(self, run: SweepRun) -> None:
        finished = run.state == "finished"
        result = f"test error {run.test_error:.2f} %" if finished else run.why
        self._print(run, f"{run.state}: {result}")

    def _print(self, run: SweepRun, text: str) -> None:
        self.shown.event(f"{run}: {text}")


def _is_held(run: SweepRun) -> bool:
    """Whether another process trains in the run folder now."""
    if not run.run.folder.path.exists():
        return False
    try:
        with files.lock(run.run.folder.path):
            return False
    except UserError as error:
        return files.BUSY in str(error)
