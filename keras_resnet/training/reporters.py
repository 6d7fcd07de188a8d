"""What a run tells while it goes on: on the terminal, and in TensorBoard's log."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from keras_resnet import console
from keras_resnet.runs.folder import MetricsRow
from keras_resnet.training.timing import Clock

ESTIMATE_AFTER = 20  # updates, from which on a rate is trusted and the time left is told


class Reporter(Protocol):
    """Something that is told of a run's events."""

    def begin(self, step: int) -> None:
        """Training begins, after `step` updates."""

    def update(self, step: int, logs: Mapping[str, float], clock: Clock) -> None:
        """The update `step` was made; `logs` holds loss and accuracy since the last evaluation."""

    def evaluating(self, step: int) -> None:
        """A validation begins."""

    def evaluated(self, row: MetricsRow) -> None:
        """A row of metrics.csv came about."""

    def close(self) -> None:
        """Training has ended, well or not."""


class Terminal:
    """A line per evaluation, and a progress bar where stderr is a terminal.

    Args:
        steps: updates of the whole run.
        batch_size: images per update.
    """

    def __init__(self, steps: int, batch_size: int):
        self.steps, self.batch_size = steps, batch_size
        self._bar: tqdm | None = None
        self._start = 0
        self._rate: float | None = None  # images per second, by which the time left is told
        self._estimated = False

    def begin(self, step: int) -> None:
        self._start = step
        self._bar = tqdm(
            total=self.steps,
            initial=step,
            unit="update",
            disable=None,  # where stderr is no terminal, the line per evaluation is progress enough
            dynamic_ncols=True,
            # Not tqdm's {remaining}: it takes compiling and validating for updates.
            bar_format="{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}",
        )

    def update(self, step: int, logs: Mapping[str, float], clock: Clock) -> None:
        assert self._bar is not None
        done, remaining = step - self._start, self.steps - step
        if done >= ESTIMATE_AFTER and (
            self._rate is None or clock.interval_updates >= ESTIMATE_AFTER
        ):
            self._rate = self._images_per_second(clock) or self._rate
        if done % 10 == 0:
            text = f"loss {logs['loss']:.3f}"
            if self._rate is not None:
                left = console.duration(remaining * self.batch_size / self._rate)
                text = f"{left} left, {text}, {self._rate:.0f} images/s"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        # On a GPU, which comes here once in up to 50 updates, the 20th may not be seen.
        if not self._estimated and self._rate is not None:
            self._estimated = True
            if remaining > 100:
                self._print(
                    f"first {done} updates: {self._rate:.0f} images/s; the remaining "
                    f"{remaining:,} updates will take about "
                    f"{console.duration(remaining * self.batch_size / self._rate)}"
                )

    def evaluating(self, step: int) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("validating", refresh=True)

    def evaluated(self, row: MetricsRow) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("", refresh=False)
        validation = "" if row["val_error"] is None else f", validation {row['val_error']:.2f} %"
        rate = row["images_per_second"]
        self._print(
            f"update {row['step']:,}/{self.steps:,}: loss {row['train_loss']:.4f}, "
            f"error: training {row['train_error']:.2f} %{validation}, "
            f"rate {row['learning_rate']:g}" + ("" if rate is None else f", {rate:.0f} images/s")
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _images_per_second(self, clock: Clock) -> float | None:
        rate = clock.rate()
        return None if rate is None else rate * self.batch_size

    def _print(self, text: str) -> None:
        assert self._bar is not None
        self._bar.clear()
        console.print_line(text)
        self._bar.refresh()


class TensorBoard:
    """The rows of metrics.csv for TensorBoard.

    They are in metrics.csv too, so a full disk is no reason to stop here: it is told and passed over.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: RecordWriter | None = None

    def begin(self, step: int) -> None:
        # Its own writers are TensorFlow's, or write from a thread, which loses errors.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        with self._forgiving():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter(open(self.folder / name, "wb"))  # noqa: SIM115
            self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))

    def update(self, step: int, logs: Mapping[str, float], clock: Clock) -> None:
        pass

    def evaluating(self, step: int) -> None:
        pass

    def evaluated(self, row: MetricsRow) -> None:
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "step" and isinstance(value, float)
        ]
        summary = summary_pb2.Summary(value=values)
        with self._forgiving():
            self._write(event_pb2.Event(wall_time=time.time(), step=row["step"], summary=summary))

    def close(self) -> None:
        if self._writer is not None:
            with self._forgiving():
                self._writer.close()

    def _write(self, event: event_pb2.Event) -> None:
        if self._writer is not None:
            self._writer.write(event.SerializeToString())
            self._writer.flush()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            console.print_line(f"warning: the TensorBoard log could not be written ({error})")
