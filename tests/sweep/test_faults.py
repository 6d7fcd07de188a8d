"""Whatever happens to a sweep, its runs end with the bits of undisturbed ones, and no process is left."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_resnet.report import rows
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunFolder
from keras_resnet.sweep import drive, plan, table

HERE = Path(__file__).parent
STEPS = 40
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    "--precision=float32", f"--steps={STEPS}", "--checkpoint-every=7", "--eval-every=10",
]  # fmt: skip
LEFT_SECONDS = 15  # after which nothing of a sweep may be left

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs requirements-sweep.txt"),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="processes are looked for in /proc"),
]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seeds that nothing disturbed, trained by `train` one after the other.

    With one thread, as a run that has one CPU: the number of threads decides the order of additions.
    """
    output = tmp_path_factory.mktemp("reference")
    command = [sys.executable, HERE / "small_child.py", "train", *FLAGS, "--runs=8"]
    with subprocess.Popen(
        [*map(str, command), f"--output-dir={output}"],
        stdin=subprocess.PIPE,  # it trains for as long as this is open
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"},
    ) as process:
        assert process.wait(timeout=300) == 0
    return output


class Cluster:
    """A Ray cluster in a process of its own, as cluster_nodes.py makes it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, HERE / "cluster_nodes.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        made = json.loads(self.process.stdout.readline())
        self.address, self.raylets = made["address"], set(made["raylets"])

    def remove(self, raylet: int) -> None:
        """Kill a node: its raylet and its workers."""
        self._ask(f"remove {raylet}")

    def add_blind(self, folder: Path) -> None:
        """Add a node that does not see what is in a folder."""
        self._ask(f"blind {folder}")

    def _ask(self, line: str) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        yield made
    finally:
        made.process.communicate(timeout=60)


class Sweep:
    """A sweep that runs in a process of its own."""

    def __init__(self, output: Path, *flags: str, **environment: str):
        self.output, self.trace = output, output / "trace"
        self.printed = output / f"printed-{len(list(output.glob('printed-*')))}"
        with open(self.printed, "wb") as printed:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    HERE / "sweep_driver.py",
                    *FLAGS,
                    f"--output-dir={output}",
                    *flags,
                ],
                stdout=printed,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the cluster is on loopback too
                    "TF_SWEEP_TRACE": str(self.trace),
                    **environment,
                },
            )

    def updates(self) -> list[tuple[str, int, int, float]]:
        """Seed, process, update, time of every update so far."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        words = [line.split() for line in lines]
        return [(seed, int(pid), int(step), float(when)) for seed, pid, step, when in words]

    def wait_for(self, what: Callable[[], Any], seconds: float = 120) -> Any:
        """Wait until something is so, while the sweep goes on."""
        limit = time.monotonic() + seconds
        while not (found := what()):
            assert self.process.poll() is None, self.printed.read_text()
            assert time.monotonic() < limit, self.printed.read_text()
            time.sleep(0.05)
        return found

    def end(self, seconds: float = 300) -> tuple[int, str]:
        """Its exit code and what it printed; no training may be left then."""
        code = self.process.wait(seconds)
        self.assert_nothing_is_left()
        return code, self.printed.read_text()

    def assert_nothing_is_left(self) -> None:
        limit = time.monotonic() + LEFT_SECONDS
        while left := self.trainings():
            assert time.monotonic() < limit, left
            time.sleep(0.1)

    def trainings(self) -> list[int]:
        """Processes that train in this sweep's folder, whoever began them."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--output-dir={self.output}".encode() in words and b"train" in words:
                found.append(int(path.parent.name))
        return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def assert_never_doubled(sweep: Sweep) -> None:
    """Each seed's processes came one after the other."""
    spans: dict[str, dict[int, list[float]]] = {}
    for seed, pid, _, when in sweep.updates():
        spans.setdefault(seed, {}).setdefault(pid, []).append(when)
    for times in spans.values():
        ordered = sorted((min(when), max(when)) for when in times.values())
        for (_, before), (after, _) in zip(ordered, ordered[1:], strict=False):
            assert before <= after
    for log in (sweep.output / "run").glob("*.log"):
        assert files.BUSY not in log.read_text()


def state(output: Path, seed: int) -> tuple[list, dict, list[np.ndarray]]:
    """What must be the same: metrics without rates, results without times, the final weights."""
    folder = RunFolder(output / "run" / f"seed-{seed}")
    metrics = [{**row, "images_per_second": None} for row in folder.read_metrics()]
    results = dict(folder.read_results() or {})
    for key in ("seconds", "images_per_second", "peak_memory_mib", "git_commit"):
        results.pop(key)
    return metrics, results, keras.models.load_model(folder.model_path).get_weights()


def assert_same(output: Path, reference: Path, seed: int) -> None:
    metrics, results, weights = state(output, seed)
    metrics0, results0, weights0 = state(reference, seed)
    assert metrics == metrics0 and [row["step"] for row in metrics] == [10, 20, 30, 40]
    assert results == results0
    assert all(np.array_equal(a, b) for a, b in zip(weights, weights0, strict=True))


def test_a_lost_node_and_a_killed_worker_change_no_bit(
    cluster: Cluster, reference: Path, tmp_path: Path
) -> None:
    sweep = Sweep(tmp_path, "--runs=8", f"--address={cluster.address}", TF_SWEEP_PAUSE="0.1")

    def in_mid_run() -> dict[int, int]:
        """Raylet -> a worker of its whose training has made 10 updates, once both have one."""
        found = {}
        for _, pid, step, _ in sweep.updates():
            if 10 <= step < 20 and pid in sweep.trainings():
                found[parent(parent(pid))] = parent(pid)
        return found if set(found) == cluster.raylets else {}

    (lost, _), (_, worker) = sweep.wait_for(in_mid_run).items()
    os.kill(worker, signal.SIGKILL)
    cluster.remove(lost)
    code, printed = sweep.end()
    assert code == 0, printed
    assert printed.count("its worker was lost") >= 3, printed  # one, and the two of the node
    assert "goes on from update 14 on" in printed or "goes on from update 7 on" in printed
    assert_never_doubled(sweep)
    for seed in range(8):
        assert_same(tmp_path, reference, seed)
    (row,) = rows.group([rows.read_record(path) for path in rows.find_runs([tmp_path])])[0]
    assert [run.config.seed for run in row.finished] == list(range(8))
    mean = f"{row.mean('test_error'):.2f} ± {row.std:.2f}"
    assert (
        mean in printed
        and f'"test_error_mean": {round(row.mean("test_error"), 4)}'
        in (tmp_path / "run/summary.json").read_text()
    )


def descendants(pid: int) -> list[int]:
    """Processes that a process began, and those that these began."""
    found = [pid]
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = parent(int(path.name))
    for known in found:
        found += [child for child, above in parents.items() if above == known]
    return found[1:]


def listening(pids: list[int]) -> set[str]:
    """Addresses that processes listen on, as the kernel writes them, without ports."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(descriptor))
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def test_killed_and_interrupted_and_given_again(reference: Path, tmp_path: Path) -> None:
    """The driver is killed, then interrupted; the third time one of eight runs diverges."""

    def under_way(sweep: Sweep, updates: int) -> None:
        """Wait until two trainings that this sweep began have made some updates."""
        before = {pid for _, pid, _, _ in sweep.updates()}

        def made() -> bool:
            counts = Counter(pid for _, pid, _, _ in sweep.updates() if pid not in before)
            return len(counts) == 2 and min(counts.values()) >= updates

        sweep.wait_for(made)

    killed = Sweep(tmp_path, "--runs=8", TF_SWEEP_PAUSE="0.2")
    under_way(killed, 8)
    family = descendants(killed.process.pid)
    trainings = killed.trainings()
    assert len(trainings) == 2 and set(trainings) < set(family)
    for pid in {killed.process.pid, *family} - set(trainings):
        with contextlib.suppress(OSError):  # some of Ray's are short
            assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()
    assert listening([killed.process.pid, *family]) <= LOOPBACK
    killed.process.kill()
    killed.process.wait()
    killed.assert_nothing_is_left()
    logs = "".join(log.read_text() for log in (tmp_path / "run").glob("*.log"))
    assert logs.count("stopped by signal 15 at update") == 2, logs

    stopped = Sweep(tmp_path, "--runs=8", TF_SWEEP_PAUSE="0.2")
    under_way(stopped, 3)
    stopped.process.send_signal(signal.SIGINT)
    code, printed = stopped.end(30)
    assert code == 130, printed
    assert "stopped by signal 2: 8 of 8 runs are not finished" in printed
    logs = "".join(log.read_text() for log in (tmp_path / "run").glob("*.log"))
    assert logs.count("stopped by signal 15 at update") == 4, logs
    assert not list(Path("/tmp").glob(f"kr-{killed.process.pid}-*"))

    assert not list(tmp_path.glob(".sweep-*"))  # the killed driver's neither
    code, printed = Sweep(tmp_path, "--runs=8", TF_SWEEP_DIVERGE="3").end()
    assert code == 1, printed
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and failed[0].startswith("failed: run seed 3: the loss became NaN")
    assert "1 of 8 runs failed" in printed
    assert_never_doubled(stopped)
    assert not (tmp_path / "run/seed-3/results.json").exists()
    for seed in (0, 1, 2, 4, 5, 6, 7):
        assert_same(tmp_path, reference, seed)


def test_a_run_that_ends_while_the_sweep_is_stopped_is_told_and_counted(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "--runs=3", TF_SWEEP_PAUSE="0.5")
    # The signal comes after its last update, in the pause before its test.
    sweep.wait_for(lambda: any(step == STEPS for _, _, step, _ in sweep.updates()))
    sweep.process.send_signal(signal.SIGINT)
    code, printed = sweep.end(30)
    finished = len(list(tmp_path.glob("run/seed-*/results.json")))
    assert code == 130 and 1 <= finished <= 2, printed
    assert f"stopped by signal 2: {3 - finished} of 3 runs are not finished" in printed
    assert printed.count(": finished: test error") == finished, printed
    assert "lost" not in printed and "died" not in printed
    assert not list(tmp_path.glob(".*"))


def test_another_process_s_run_that_ends_while_the_sweep_is_stopped_counts(
    reference: Path,
) -> None:
    class Told(table.Lines):
        texts: list[str] = []

        def event(self, text: str) -> None:
            self.texts.append(text)

    config = TrainConfig(
        depth=8, dataset="synthetic", val_size=100, batch_size=8, name="run", precision="float32",
        steps=STEPS, checkpoint_every=7, eval_every=10, output_dir=str(reference),
    )  # fmt: skip
    held = drive.Entry(plan.Run(config), job=None, at=plan.Standing("begun"), state="held")
    drive.Driver([held], 1, 0, told := Told())._end()
    assert held.state == "finished" and told.texts[-1].startswith("run seed 0: finished: test")


def test_ray_leaves_sigterm_to_the_command() -> None:
    code = (
        "import signal, sys; sys.argv = ['keras-resnet']; from keras_resnet.sweep import cluster; "
        "signal.signal(signal.SIGTERM, print)\n"
        "with cluster.connected(None): assert signal.getsignal(signal.SIGTERM) is print"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=HERE.parents[1])


def test_a_node_that_does_not_see_the_folder(cluster: Cluster, tmp_path: Path) -> None:
    """It joins in mid-run and gets no runs; a sweep that finds it there says so and trains nothing."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("hiding a folder from a node needs the right to mount")
    for raylet in list(cluster.raylets)[1:]:
        cluster.remove(raylet)
    sweep = Sweep(tmp_path, "--runs=3", f"--address={cluster.address}", TF_SWEEP_PAUSE="0.2")
    sweep.wait_for(sweep.updates)
    cluster.add_blind(tmp_path)
    code, printed = sweep.end()
    assert code == 0, printed
    assert f"it does not see {tmp_path}" in printed
    assert printed.count(": finished: ") == 3 and "lost" not in printed
    again = Sweep(tmp_path, "--runs=4", f"--address={cluster.address}")
    code, printed = again.end(60)
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 2 and f"does not see {tmp_path}. Name shared folders with --output-dir" in line
    assert not (tmp_path / "run/seed-3").exists()


def test_a_run_that_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "small_child.py", "train", *FLAGS, f"--output-dir={tmp_path}"]
    trace = {"TF_SWEEP_TRACE": str(tmp_path / "trace"), "TF_SWEEP_PAUSE": "0.5"}
    with subprocess.Popen(
        [*map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **trace},
    ) as other:
        while not (tmp_path / "trace").exists():
            assert other.poll() is None
            time.sleep(0.1)
        sweep = Sweep(tmp_path)
        code, printed = sweep.end()
        assert other.wait(1) == 0
    assert code == 0 and "is trained by another process: waiting for it" in printed, printed
    assert "run seed 0: finished" in printed and not (tmp_path / "run/seed-0.log").exists()
    assert len(sweep.updates()) == STEPS and len({pid for _, pid, _, _ in sweep.updates()}) == 1


def test_data_that_no_node_sees_is_told_before_anything_trains(tmp_path: Path) -> None:
    code, printed = Sweep(
        tmp_path, "--dataset=cifar10", f"--data-dir={tmp_path / 'nowhere'}", "--depth=20"
    ).end()
    assert code == 2
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert f"has no data set in {tmp_path / 'nowhere' / 'cifar10'}" in line
    assert not (tmp_path / "run").exists()


def test_the_command_itself(tmp_path: Path) -> None:
    """Without small_child.py: all 60,000 images, in the child that the command starts."""
    command = [
        sys.executable, "-m", "keras_resnet", "sweep", *FLAGS, "--steps=4", f"--output-dir={tmp_path}",
        "--dataset=synthetic", "--model", "plain", "resnet", "--shortcut", "projection",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: plain8 with projection" in done.stdout
    assert "run seed 0: finished: test error" in done.stdout
    config = RunFolder(tmp_path / "run/seed-0").read_config()
    assert config is not None and config["command"].startswith("keras-resnet train --depth=8")
    assert done.stderr == ""
