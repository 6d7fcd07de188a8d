"""Whatever happens to a sweep, its runs end with the bits of undisturbed ones, and no process is left."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from keras_resnet.runs.folder import RunFolder
from tests.helpers import python, state_of

HERE = Path(__file__).parent
STEPS = 40
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    "--precision=float32", f"--steps={STEPS}", "--checkpoint-every=7", "--eval-every=10",
]  # fmt: skip

pytest.importorskip("ray", reason="needs the extra [sweep]")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home folder that holds a token of Ray's."""
    folder = tmp_path_factory.mktemp("home")
    (folder / ".ray").mkdir()
    (folder / ".ray/auth_token").write_text("0123456789abcdef0123456789abcdef")
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Eight seeds that nothing disturbed, with one thread, as each run of a sweep has."""
    output = tmp_path_factory.mktemp("reference")
    with train(output, "--runs=8") as process:
        assert process.wait(timeout=300) == 0
    return output


def train(output, *flags, **environment):
    """`train` in a process of its own, which ends with its stdin."""
    return subprocess.Popen(
        [sys.executable, HERE / "small_data.py", "train", *FLAGS, f"--output-dir={output}", *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1", **environment},
    )


class Cluster:
    """A Ray cluster in a process of its own, as cluster_nodes.py makes it."""

    def __init__(self, home):
        self.process = subprocess.Popen(
            [sys.executable, HERE / "cluster_nodes.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "HOME": str(home)},
        )
        made = json.loads(self.process.stdout.readline())
        self.address, self.raylets = made["address"], set(made["raylets"])

    def ask(self, line):
        """`remove PID` kills a node, `blind FOLDER` adds one that sees nothing in a folder."""
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def cluster(home):
    made = Cluster(home)
    yield made
    made.process.communicate(timeout=60)


class Sweep:
    """A sweep in a process of its own, started as a script starts one with `&`: SIGINT is ignored."""

    def __init__(self, output, home, *flags, **environment):
        self.output, self.trace = output, output / "trace"
        self.printed = output / f"printed-{len(list(output.glob('printed-*')))}"
        environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # the cluster is on loopback too
        environment |= {"HOME": str(home), "TF_SWEEP_TRACE": str(self.trace)}
        with open(self.printed, "wb") as printed:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "small_data.py", "sweep", *FLAGS, f"--output-dir={output}", *flags],
                stdout=printed,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
                env={**os.environ, **environment},
            )  # fmt: skip

    def updates(self):
        """Seed, process, update of every update so far, in their order."""
        lines = self.trace.read_text().splitlines() if self.trace.exists() else []
        return [(seed, int(pid), int(step)) for seed, pid, step in map(str.split, lines)]

    def wait_for(self, what, seconds=300):
        """Wait until something is so, while the sweep goes on."""
        limit = time.monotonic() + seconds
        while not (value := what()):
            assert self.process.poll() is None, self.printed.read_text()
            assert time.monotonic() < limit, self.printed.read_text()
            time.sleep(0.05)
        return value

    def wait_for_two(self, updates):
        """Wait until two trainings of this sweep have made some updates."""
        before = {pid for _, pid, _ in self.updates()}

        def made():
            counts = Counter(pid for _, pid, _ in self.updates() if pid not in before)
            return len(counts) == 2 and min(counts.values()) >= updates

        self.wait_for(made)

    def end(self, seconds=600):
        """Its exit code and what it printed; no training may be left then."""
        code = self.process.wait(seconds)
        limit = time.monotonic() + 15
        while left := self.trainings():
            assert time.monotonic() < limit, left
            time.sleep(0.1)
        return code, self.printed.read_text()

    def trainings(self):
        """Processes that train in this sweep's folder, whoever started them."""
        words = {f"--output-dir={self.output}", "train"}
        found = psutil.process_iter(["cmdline"])
        return [process.pid for process in found if words <= set(process.info["cmdline"] or ())]

    def assert_never_doubled(self):
        """The processes of each seed came one after the other."""
        pids = {}
        for seed, pid, _ in self.updates():
            if pids.setdefault(seed, [0])[-1] != pid:
                assert pid not in pids[seed], "a process went on after another had begun"
                pids[seed].append(pid)

    def logs(self):
        return "".join(log.read_text() for log in (self.output / "run").glob("*.log"))


def holds_tensorflow(pid):
    return any("tensorflow" in map.path for map in psutil.Process(pid).memory_maps())


def assert_same(output, reference, seed):
    state = state_of(output / f"run/seed-{seed}")
    assert state == state_of(reference / f"run/seed-{seed}") and len(state[0]) == 4


def test_a_lost_node_and_a_killed_worker_change_no_bit(cluster, home, reference, tmp_path):
    """Meanwhile a driver without the cluster's token is refused."""
    address = f"--address={cluster.address}"
    sweep = Sweep(tmp_path, home, "--runs=8", address, TF_SWEEP_PAUSE="0.1")
    (other := tmp_path / "other-home").mkdir()
    stranger = Sweep(other, other, address)

    def in_mid_run():
        """Raylet -> a worker of it whose training has made 10 updates, once both have one."""
        workers = {}
        for _, pid, step in sweep.updates():
            if 10 <= step < 20 and pid in sweep.trainings():
                worker, raylet = psutil.Process(pid).parents()[:2]
                workers[raylet.pid] = worker.pid
        return workers if set(workers) == cluster.raylets else {}

    (lost, _), (_, worker) = sweep.wait_for(in_mid_run).items()
    assert not holds_tensorflow(worker)
    os.kill(worker, signal.SIGKILL)
    cluster.ask(f"remove {lost}")
    code, printed = sweep.end()
    assert code == 0, printed
    assert printed.count("its worker was lost") >= 3, printed  # one, and the two of the node
    assert "goes on from update 14" in printed or "goes on from update 7" in printed
    assert "raylet" not in printed and printed.count(": finished: ") == 8
    assert re.search(r"/seed-\d: update \d\d/40, validation error", printed), printed
    assert "(8 finished)" in printed and "gcs_client" not in printed
    places = re.findall(r"(?:begins|goes on from update \d+) on (.*) \(", printed)
    assert set(places) == {socket.gethostname()} and len(places) >= 11, printed
    sweep.assert_never_doubled()
    for seed in range(8):
        assert_same(tmp_path, reference, seed)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    mean, std = summary["test_error_mean"], summary["test_error_std"]
    assert summary["runs"] == 8 and f"{mean:.2f} ± {std:.2f}" in printed
    code, printed = stranger.end(120)
    assert code == 2 and printed.count("\n") == 1, printed
    assert "copy ~/.ray/auth_token of its head" in printed


def test_killed_and_stopped_and_given_again(home, reference, tmp_path):
    """The driver is killed, then stopped by SIGTERM; the third time one of four runs diverges."""
    killed = Sweep(tmp_path, home, "--runs=4", TF_SWEEP_PAUSE="0.2")
    killed.wait_for_two(8)
    family = psutil.Process(killed.process.pid).children(recursive=True)
    trainings = killed.trainings()
    assert len(trainings) == 2 and set(trainings) < {process.pid for process in family}
    assert not holds_tensorflow(killed.process.pid)
    open_to = [c for p in family for c in p.net_connections() if c.status == "LISTEN"]
    assert {c.laddr.ip for c in open_to} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    killed.process.kill()
    killed.end()
    assert killed.logs().count("stopped by SIGTERM at update") == 2, killed.logs()

    stopped = Sweep(tmp_path, home, "--runs=4", TF_SWEEP_PAUSE="0.2")
    stopped.wait_for_two(3)
    stopped.process.terminate()
    code, printed = stopped.end(30)
    assert code == 143, printed
    assert "stopped by SIGTERM: 4 of 4 runs are not finished" in printed and "lost" not in printed
    assert stopped.logs().count("stopped by SIGTERM at update") == 4, stopped.logs()

    code, printed = Sweep(tmp_path, home, "--runs=4", TF_SWEEP_DIVERGE="3").end()
    assert code == 1, printed
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and failed[0].startswith("failed: run/seed-3: ")
    assert "it has diverged; give a smaller --learning-rate or more --warmup-steps" in failed[0]
    stopped.assert_never_doubled()
    for seed in (0, 1, 2):
        assert_same(tmp_path, reference, seed)
    made = len(stopped.updates())
    code, printed = Sweep(tmp_path, home, "--runs=4").end(120)  # it would diverge again
    assert code == 1 and "1 of 4 runs failed" in printed and len(stopped.updates()) == made


def test_a_node_that_does_not_see_the_folder(cluster, home, tmp_path):
    """It joins in mid-run and gets no runs."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("hiding a folder from a node needs the right to mount")
    for raylet in list(cluster.raylets)[1:]:
        cluster.ask(f"remove {raylet}")
    address = f"--address={cluster.address}"
    # Slow enough for the node to join before the third run has a place, on a busy machine too.
    sweep = Sweep(tmp_path, home, "--runs=3", address, TF_SWEEP_PAUSE="0.3")
    sweep.wait_for(sweep.updates)
    cluster.ask(f"blind {tmp_path}")
    code, printed = sweep.end()
    assert code == 0 and f"does not see {tmp_path}" in printed, printed
    assert printed.count(": finished: ") == 3 and "lost" not in printed


def test_a_run_that_another_process_trains_is_waited_for(home, tmp_path):
    trace = tmp_path / "trace"
    with train(tmp_path, TF_SWEEP_TRACE=str(trace), TF_SWEEP_PAUSE="1") as other:
        while not trace.exists():
            assert other.poll() is None
            time.sleep(0.1)
        sweep = Sweep(tmp_path, home)
        code, printed = sweep.end()
        assert other.wait(5) == 0
    assert code == 0 and "run/seed-0: another process trains it: waiting" in printed, printed
    assert "run/seed-0: finished" in printed and len(sweep.updates()) == STEPS


def test_three_deaths_without_a_checkpoint_are_a_failure(home, tmp_path):
    sweep, killed = Sweep(tmp_path, home), set[int]()
    while len(killed) < 3:
        (pid,) = sweep.wait_for(lambda: set(sweep.trainings()) - killed)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    code, printed = sweep.end()
    assert code == 1, printed
    assert "failed: its process ended (SIGKILL), 3 times at update 0" in printed


def test_the_command_itself(tmp_path, home):
    """Without small_data.py: a plan of many runs, a data set that no node has, and one run."""

    def sweep(*flags):
        words = ["sweep", *FLAGS, "--steps=4", "--output-dir", tmp_path / "new", *flags]
        return python("-m", "keras_resnet", *words, HOME=str(home))

    planned = sweep("--dry-run", "--runs=1000", "--learning-rate", "0.1", "0.05")
    assert planned.returncode == 0 and planned.stdout.count("\n") < 10, planned.stdout
    assert "run-resnet8-synthetic-lr0.05  1,000 waiting" in planned.stdout
    assert not (tmp_path / "new").exists()
    large = sweep("--memory-per-run=1000000")
    assert large.returncode == 2 and "Received: 1 CPU, 1e+06 GiB per run" in large.stderr
    (tmp_path / "new/run/seed-0").mkdir(parents=True)
    (tmp_path / "new/run/seed-0/model.keras").touch()  # of no run
    failed = sweep("--dry-run", "--runs=2")
    assert failed.returncode == 1 and "has no config.json" in failed.stderr, failed.stderr
    shutil.rmtree(tmp_path / "new")
    missing = sweep("--dataset=cifar10", f"--data-dir={tmp_path}")
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1
    assert f"has no {tmp_path / 'cifar10'}/*/dataset_info.json" in missing.stderr
    done = sweep("--model", "plain", "resnet", "--cpus-per-run=2")
    assert done.returncode == 0 and done.stderr == "", done.stdout + done.stderr
    assert "run-resnet8-synthetic/seed-0: finished: test error" in done.stdout
    config = RunFolder(tmp_path / "new/run-plain8-synthetic/seed-0").read_config()
    assert config["command"].startswith("keras-resnet train --model=plain")
