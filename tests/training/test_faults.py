"""Whatever happens to a run, the same command again gives the bits of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import RunFolder

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("fault_driver.py")
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    "--steps=60", "--checkpoint-every=7", "--eval-every=10",
]  # fmt: skip
# Flags of each case, and where its run is killed: at random updates, which each life counts anew, and inside
# the writing of checkpoints and metrics.
CASES = {
    "float32": ["--precision=float32"],
    "fast-float32": ["--precision=float32", "--recipe=fast"],
    "fast-bfloat16": ["--precision=mixed_bfloat16", "--recipe=fast"],
    "fast-float16": ["--precision=mixed_float16", "--recipe=fast"],
}
WRITING = {
    "float32": ["write:1", "rename:3", "renamed:2", "write:2"],
    "fast-float32": ["write:2", "rename:3", "renamed:1"],
    "fast-bfloat16": ["rename:2", "renamed:4", "write:1"],
    "fast-float16": [],
}


def start(output: Path, fault: str, *flags: str, **options: Any) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(DRIVER), fault, *FLAGS, f"--output-dir={output}", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, without the notes that TensorFlow writes when it starts."""
    out, err = process.communicate(timeout=120)
    noise = re.compile(r"^([IWE]\d{4} |WARNING: All log|To enable the following|\s*$)")
    own = "".join(line for line in err.splitlines(True) if not noise.match(line))
    return process.returncode, out, own


def run(output: Path, fault: str = "none", *flags: str, **options: Any) -> tuple[int, str, str]:
    return end(start(output, fault, *(flags or CASES["float32"]), **options))


def waiting(output: Path, update: int) -> subprocess.Popen:
    """A run that waits at an update for a signal."""
    process = start(output, f"wait:{update}", *CASES["float32"])
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    return process


def state(output: Path) -> tuple[list, dict, list[bytes]]:
    """What must be the same: metrics without rates, results without times, the final weights."""
    folder = output / "run/seed-0"
    rows = [{**row, "images_per_second": None} for row in RunFolder(folder).read_metrics()]
    results = json.loads((folder / "results.json").read_text())
    for key in ("seconds", "images_per_second", "peak_memory_mib"):
        results.pop(key)
    net = keras.models.load_model(folder / "model.keras")
    return rows, results, [weight.tobytes() for weight in net.get_weights()]


def assert_same(output: Path, reference: Path) -> None:
    assert state(output) == state(reference)
    assert [row["step"] for row in state(output)[0]] == [10, 20, 30, 40, 50, 60]
    assert not list(output.rglob(".tmp-*"))
    assert names(output) == ["step-00000060.npz", "step-00000056.npz"]


def names(output: Path) -> list[str]:
    return [path.name for path in checkpoint.list_checkpoints(output / "run/seed-0")]


class References(dict[str, Path]):
    """Uninterrupted runs by case, each made when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], Path]):
        super().__init__()
        self.make_folder = make_folder

    def __missing__(self, case: str) -> Path:
        folder = self.make_folder(case)
        code, _, err = run(folder, "none", *CASES[case])
        assert code == 0, err
        return self.setdefault(case, folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(tmp_path_factory.mktemp)


@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again_ends_with_the_same_bits(
    case: str, reference: References, tmp_path: Path
) -> None:
    """One run is killed and resumed until it ends; deaths that come too late for it hit nothing."""
    rng, killed = random.Random(case), 0
    updates = [f"update:{rng.randint(2, 14)}" for _ in range(4 if "16" in case else 10)]
    for fault in [*updates, *WRITING[case]]:
        code, _, err = run(tmp_path, fault, *CASES[case])
        assert code in (0, -signal.SIGKILL), err
        killed += code != 0
        if code == 0:
            assert_same(tmp_path, reference[case])
            shutil.rmtree(tmp_path / "run")
    code, _, err = run(tmp_path, "none", *CASES[case])
    assert code == 0, err
    assert_same(tmp_path, reference[case])
    assert killed >= 0.7 * len([*updates, *WRITING[case]])
    arrays, _ = checkpoint.load(tmp_path / "run/seed-0/checkpoints/step-00000060.npz")
    # The loss scaling has a count of its own, which stays at 0.
    made = max(int(value) for name, value in arrays.items() if name.endswith("/iteration"))
    assert (made < 60) is (case == "fast-float16"), "float16 skips updates that overflow"


def test_killed_inside_the_final_save(reference: References, tmp_path: Path) -> None:
    assert run(tmp_path, "save:1")[0] == -signal.SIGKILL
    folder = tmp_path / "run/seed-0"
    assert not (folder / "model.keras").exists() and not (folder / "results.json").exists()
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 60 of 60" in out, err
    assert_same(tmp_path, reference["float32"])


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("killed")
    assert run(output, "update:30")[0] == -signal.SIGKILL
    return output


@pytest.fixture
def half_done(killed: Path, tmp_path: Path) -> Path:
    """A copy of a run that was killed at update 30; its checkpoints are those of 28 and 21."""
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    assert names(tmp_path) == ["step-00000028.npz", "step-00000021.npz"]
    return tmp_path


def damage(path: Path, how: str) -> None:
    match how:
        case "truncated":
            os.truncate(path, path.stat().st_size // 3)
        case "bit":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        case "missing":
            path.unlink()


@pytest.mark.parametrize("how", ["truncated", "bit", "missing"])
def test_a_damaged_newest_checkpoint_is_passed_over(
    how: str, half_done: Path, reference: References
) -> None:
    damage(checkpoint.list_checkpoints(half_done / "run/seed-0")[0], how)
    code, out, err = run(half_done)
    assert code == 0 and "resuming at update 21 of 60" in out, err
    assert ("step-00000028.npz is damaged" in err) == (how != "missing")
    assert_same(half_done, reference["float32"])


@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_no_good_checkpoint_is_an_error_and_deletes_nothing(
    how: str, half_done: Path, reference: References
) -> None:
    folder = half_done / "run/seed-0"
    for path in checkpoint.list_checkpoints(folder):
        damage(path, how)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, _, err = run(half_done)
    assert code == 2 and "no checkpoint in" in err and "--restart" in err and err.count("\n") == 1
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, out, err = run(half_done, "none", *CASES["float32"], "--restart")
    assert code == 0 and "seed-0.old-1" in out, err
    assert (half_done / "run/seed-0.old-1/metrics.csv").exists()
    assert_same(half_done, reference["float32"])


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_checkpoint_and_say_so(signum: int, reference: References, tmp_path: Path) -> None:
    process = waiting(tmp_path, 17)
    # While it runs, a second process on the folder is refused.
    code, _, err = run(tmp_path)
    assert code == 2 and "another process is training" in err and err.count("\n") == 1
    process.send_signal(signum)
    code, out, err = end(process)
    assert code == 128 + signum
    assert "stopping: saving a checkpoint; Ctrl-C again loses what came after update 14" in out
    assert err.count("\n") == 1 and "at update 17" in err and "resumes" in err
    assert names(tmp_path)[0] == "step-00000017.npz"
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 17 of 60" in out, err
    assert state(tmp_path) == state(reference["float32"])


def test_a_full_disk_ends_in_one_line(reference: References, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes every write beyond it fail, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, _, err = run(tmp_path, preexec_fn=limit)
    assert code == 2 and err.count("\n") == 1, err
    assert "step-00000007.npz could not be written (File too large)" in err
    assert not list(tmp_path.rglob(".tmp-*")) and not list(tmp_path.rglob("*.npz"))
    assert run(tmp_path)[0] == 0
    assert_same(tmp_path, reference["float32"])


def test_a_reader_that_goes_away_stops_nothing(reference: References, tmp_path: Path) -> None:
    """`train.py | head -n 1`."""
    process = waiting(tmp_path, 17)
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGUSR1)
    code, _, err = end(process)
    assert code == 0 and err == "", err
    assert_same(tmp_path, reference["float32"])


def test_a_folder_that_vanishes_in_mid_run(tmp_path: Path) -> None:
    """In place of a read-only folder, which does not stop root: a file where the folder was."""
    process = waiting(tmp_path, 10)
    folder = tmp_path / "run/seed-0/checkpoints"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    process.send_signal(signal.SIGINT)
    code, _, err = end(process)
    assert code == 2 and err.count("\n") == 1 and "could not be written" in err


def test_runs_resumes_at_the_seed_under_way(tmp_path: Path) -> None:
    flags = ["--runs=2", "--steps=14", "--seed=3", "--precision=float32"]
    assert run(tmp_path, "update:20", *flags)[0] == -signal.SIGKILL
    first = (tmp_path / "run/seed-3/results.json").stat().st_mtime_ns
    code, out, err = run(tmp_path, "none", *flags)
    assert code == 0 and "seed-3 is finished" in out, err
    assert (tmp_path / "run/seed-3/results.json").stat().st_mtime_ns == first
    assert json.loads((tmp_path / "run/summary.json").read_text())["seeds"] == [3, 4]
