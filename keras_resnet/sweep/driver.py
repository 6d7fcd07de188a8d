"""The driver of a sweep: it gives the runs to Ray, the lost ones again, and watches their folders."""

import dataclasses
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence

import ray

from keras_resnet import console
from keras_resnet.errors import DIVERGED, USER_ERROR, UserError
from keras_resnet.runs import files
from keras_resnet.sweep import cluster, table, task
from keras_resnet.sweep.plan import SweepRun
from keras_resnet.sweep.task import Outcome
from keras_resnet.training.signals import Signals

MAX_LOSSES = 3  # without a new checkpoint between them
WAIT = 1.0  # seconds between two looks at Ray and the run folders
BUSY_WAIT = 10.0  # seconds before a run that another process trains is tried again
END = task.END + 4  # seconds in which all trainings must end
STOPPING = "stopping: every training saves a checkpoint; a second signal does not wait"
ADVICE = "give a smaller `learning_rate` or more `warmup_steps`, with another `name`"


@dataclasses.dataclass
class Driver:
    """Trains the unfinished runs on the Ray cluster that this process is connected to."""

    runs: Sequence[SweepRun]  # in the order in which they begin
    share: Mapping[str, float]  # what one run takes of a node: `{"CPU": 1.0, "GPU": 0.25}`
    refresh: Callable[[], None]  # called when something may have changed
    _unfit_nodes: list[str] = dataclasses.field(default_factory=list)
    _signals: Signals = dataclasses.field(default_factory=lambda: Signals(STOPPING))

    def work(self) -> int:
        """Work until every run is finished or has failed; returns the signal that ended it earlier, or 0."""
        with self._signals as signals:
            while not all(run.ended for run in self.runs) and not signals.received:
                for run in self.runs:
                    if run.task is not None:
                        self._update(run)
                    elif not run.ended and time.monotonic() > run.not_before:
                        self._submit(run)  # Ray queues them in order
                self.refresh()
                self._collect()
            if signals.received:
                self._stop()
        self.refresh()
        return signals.received

    def _submit(self, run: SweepRun) -> None:
        run.log.parent.mkdir(parents=True, exist_ok=True)
        run.log_bytes = run.log.stat().st_size if run.log.exists() else 0
        unfit, amounts = ",".join(self._unfit_nodes), dict(self.share)
        train = ray.remote(task.train).options(
            num_cpus=amounts.pop("CPU", 0),
            num_gpus=amounts.pop("GPU", 0),
            memory=amounts.pop("memory", None),
            resources=amounts,
            scheduling_strategy="SPREAD",
            max_retries=0,
            label_selector={"ray.io/node-id": f"!in({unfit})"} if unfit else None,
        )
        run.task = train.remote(run.job)

    def _update(self, run: SweepRun) -> None:
        """Look in a run's log for where it has started; once it has, look how far it is."""
        steps = run.run.recipe.steps
        if run.state == "running":
            tenth = 10 * run.step // steps
            run.look()
            run.state = "running"  # until its task has ended
            if 10 * run.step // steps > tenth:
                error = "" if run.val_error is None else f", validation error {run.val_error:.2f} %"
                self._print(run, f"update {run.step:,}/{steps:,}{error}")
        elif run.log.exists():
            with open(run.log, "rb") as log:
                log.seek(run.log_bytes)
                # A process whose worker was lost may write here until it has ended.
                header = re.search(r"^--- .* on (.*)$", log.read().decode(errors="replace"), re.M)
            if header:
                run.state = "running"
                begins = f"goes on from update {run.saved:,}" if run.saved else "begins"
                self._print(run, f"{begins} on {header[1]}")

    def _collect(self) -> None:
        """Wait for a moment, and handle the outcome of a task that has ended."""
        tasks = {run.task: run for run in self.runs if run.task is not None}
        if not tasks:
            time.sleep(WAIT)
            return
        for ref in ray.wait(list(tasks), num_returns=1, timeout=WAIT)[0]:
            run = tasks[ref]
            self._update(run)
            run.task = None
            try:
                outcome: Outcome = ray.get(ref, timeout=WAIT)
            except ray.exceptions.RayError as error:
                self._take_end(run, None, f"its worker was lost ({type(error).__name__})")
                continue
            if outcome.problem:
                self._exclude(outcome)
            else:
                code = outcome.code
                reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                self._take_end(run, code, f"its process ended ({reason})")

    def _exclude(self, outcome: Outcome) -> None:
        """Give no more runs to a node that cannot train them; UserError where it was the last one."""
        if outcome.node in self._unfit_nodes:
            return
        self._unfit_nodes.append(outcome.node)
        running = any(run.state == "running" for run in self.runs)
        if not running and not cluster.count_slots(self.share, self._unfit_nodes):
            raise UserError(
                "a node must see the output folder, its locks and the data, and have this package. No node "
                f"does; the last one: {outcome.problem}. Name shared folders with `output_dir` and "
                "`data_dir`; train downloads a data set, a sweep does not"
            )
        console.print_line(f"no runs for a node: {outcome.problem}")

    def _take_end(self, run: SweepRun, code: int | None, what: str) -> None:
        """Handle the end of a run's process: `code` is its exit code, or None if its worker was lost."""
        lines = run.log.read_text(errors="replace").splitlines() if run.log.exists() else []
        line = console.printable(next(filter(str.strip, reversed(lines)), ""))
        line = line.removeprefix("error: ")
        run.state = "waiting"
        run.look()
        if run.state == "finished":  # whatever went wrong came after it
            self._print(run, f"finished: test error {run.test_error:.2f} %")
        elif code == USER_ERROR and files.BUSY in line:
            run.not_before = time.monotonic() + BUSY_WAIT
            self._print(run, "another process trains it: waiting for that one")
        elif code == USER_ERROR:
            self._fail(run, line)
        elif code == DIVERGED:
            cause = line.partition(": training has diverged")[0]
            self._fail(run, f"{cause}: it has diverged; {ADVICE}")
            run.diverged.write_text(f"{run.why}\n", encoding="utf-8")
        elif not self._signals.received:
            run.losses[run.saved] += 1
            if run.losses[run.saved] < MAX_LOSSES:
                self._print(run, f"{what}; it goes on from update {run.saved:,}")
            else:
                times = f"{MAX_LOSSES} times at update {run.saved:,}"
                self._fail(run, f"{what}, {times}; its last line: {line}")

    def _fail(self, run: SweepRun, why: str) -> None:
        run.state, run.why = "failed", why
        self._print(run, f"failed: {why}")

    def _stop(self) -> None:
        """End all trainings, each after a checkpoint."""
        limit = time.monotonic() + END
        for run in self.runs:
            if run.task is not None:
                ray.cancel(run.task)
        while any(run.task is not None for run in self.runs) and time.monotonic() < limit:
            self._collect()
        for run in self.runs:
            if run.task is not None:
                ray.cancel(run.task, force=True)

    def _print(self, run: SweepRun, text: str) -> None:
        console.print_line(f"{run.run}: {text} ({table.count_states(self.runs)})")
