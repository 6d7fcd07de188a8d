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

import keras
import numpy as np
import pytest

from keras_resnet.runs import checkpoint
from keras_resnet.runs.folder import RunFolder

DRIVER = Path(__file__).with_name("fault_driver.py")
STEPS, CHECKPOINT_EVERY, EVAL_EVERY = 60, 7, 10
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    f"--steps={STEPS}", f"--checkpoint-every={CHECKPOINT_EVERY}", f"--eval-every={EVAL_EVERY}",
]  # fmt: skip


def start(output: Path, fault: str, precision: str, *flags: str, **options) -> subprocess.Popen:
    arguments = [*FLAGS, f"--output-dir={output}", f"--precision={precision}", *flags]
    return subprocess.Popen(
        [sys.executable, str(DRIVER), fault, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(output: Path, fault: str = "none", precision: str = "float32", *flags: str, **options):
    process = start(output, fault, precision, *flags, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, own_lines(err)


def own_lines(err: str) -> str:
    """stderr without the notes that TensorFlow writes when it starts."""
    noise = re.compile(r"^([IWE]\d{4} |WARNING: All log|To enable the following|\s*$)")
    return "".join(line for line in err.splitlines(True) if not noise.match(line))


def state(output: Path, seed: int = 0) -> tuple[list, dict, list[np.ndarray]]:
    """What must be the same: metrics without rates, results without times, the final weights."""
    folder = output / "run" / f"seed-{seed}"
    rows = [{**row, "images_per_second": None} for row in RunFolder(folder).read_metrics()]
    results = json.loads((folder / "results.json").read_text())
    for key in ("seconds", "images_per_second", "peak_memory_mib"):
        results.pop(key)
    return rows, results, keras.models.load_model(folder / "model.keras").get_weights()


def assert_same(output: Path, reference: Path) -> None:
    rows, results, weights = state(output)
    rows0, results0, weights0 = state(reference)
    assert rows == rows0
    assert [row["step"] for row in rows] == list(range(EVAL_EVERY, STEPS + 1, EVAL_EVERY))
    assert results == results0
    assert all(np.array_equal(a, b) for a, b in zip(weights, weights0, strict=True))
    assert not list(output.rglob(".tmp-*"))
    files = [file.name for file in checkpoint.list_checkpoints(output / "run/seed-0")]
    assert files == ["step-00000060.npz", "step-00000056.npz"]


class References(dict[str, Path]):
    """Uninterrupted runs by case, each made when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], Path]):
        super().__init__()
        self.make_folder = make_folder

    def __missing__(self, case: str) -> Path:
        folder = self.make_folder(case)
        precision, *flags = CASES[case]
        code, _, err = run(folder, "none", precision, *flags)
        assert code == 0, err
        return self.setdefault(case, folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> References:
    return References(tmp_path_factory.mktemp)


def faults(seed: int, count: int) -> list[str]:
    """Random places to die at. Small counts, because each life starts counting anew."""
    rng = random.Random(seed)
    random_updates = [f"update:{rng.randint(2, 2 * CHECKPOINT_EVERY)}" for _ in range(count)]
    return random_updates


# Precision, and flags.
CASES = {
    "float32": ("float32",),
    "fast-float32": ("float32", "--recipe=fast"),
    "fast-bfloat16": ("mixed_bfloat16", "--recipe=fast"),
    "fast-float16": ("mixed_float16", "--recipe=fast"),
}
# Thirty random updates, and places inside the writing of checkpoints and metrics.
KILLS = {
    "float32": [*faults(0, 10), "write:1", "rename:3", "renamed:2", "write:2"],
    "fast-float32": [*faults(2, 10), "write:2", "rename:3", "renamed:1"],
    "fast-bfloat16": [*faults(1, 10), "rename:2", "renamed:4", "write:1"],
    "fast-float16": [*faults(3, 4)],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again_ends_with_the_same_bits(
    case: str, reference: References, tmp_path: Path
) -> None:
    """One run is killed and resumed until it ends; deaths that come too late for it hit nothing."""
    precision, *flags = CASES[case]
    killed = 0
    for fault in KILLS[case]:
        code, out, err = run(tmp_path, fault, precision, *flags)
        assert code in (0, -signal.SIGKILL), err
        killed += code != 0
        if code == 0:
            assert_same(tmp_path, reference[case])
            shutil.rmtree(tmp_path / "run")
    code, out, err = run(tmp_path, "none", precision, *flags)
    assert code == 0, err
    assert_same(tmp_path, reference[case])
    assert killed >= 0.7 * len(KILLS[case])
    arrays, _ = checkpoint.load(tmp_path / "run/seed-0/checkpoints/step-00000060.npz")
    # The loss scaling has a count of its own, which stays at 0.
    made = max(int(value) for name, value in arrays.items() if name.endswith("/iteration"))
    assert (made < STEPS) is (precision == "mixed_float16"), "float16 skips updates that overflow"


@pytest.mark.slow
def test_killed_inside_the_final_save(reference: References, tmp_path: Path) -> None:
    code, *_ = run(tmp_path, "save:1")
    assert code == -signal.SIGKILL
    folder = tmp_path / "run" / "seed-0"
    assert not (folder / "model.keras").exists() and not (folder / "results.json").exists()
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 60 of 60" in out, err
    assert_same(tmp_path, reference["float32"])


@pytest.fixture
def half_done(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A copy of a run that was killed at update 30; its checkpoints are those of 28 and 21."""
    cache = request.config.stash.setdefault(_HALF, tmp_path_factory.mktemp("half"))
    if not any(cache.iterdir()):
        assert run(cache, "update:30")[0] == -signal.SIGKILL
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(cache, copy, dirs_exist_ok=True)
    return copy


_HALF = pytest.StashKey[Path]()


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "bit", "missing"])
def test_a_damaged_newest_checkpoint_is_passed_over(
    damage: str, half_done: Path, reference: References
) -> None:
    newest, before = checkpoint.list_checkpoints(half_done / "run/seed-0")
    assert (newest.name, before.name) == ("step-00000028.npz", "step-00000021.npz")
    if damage == "truncated":
        os.truncate(newest, newest.stat().st_size // 3)
    elif damage == "bit":
        flip_bit(newest)
    else:
        newest.unlink()
    code, out, err = run(half_done)
    assert code == 0, err
    assert "resuming at update 21 of 60" in out
    assert ("step-00000028.npz is damaged" in err) == (damage != "missing")
    assert_same(half_done, reference["float32"])


@pytest.mark.slow
def test_no_good_checkpoint_is_an_error_and_deletes_nothing(half_done: Path) -> None:
    folder = half_done / "run/seed-0"
    for path in checkpoint.list_checkpoints(folder):
        os.truncate(path, 100)
    before = {p: p.read_bytes() for p in folder.rglob("*.npz")}
    code, out, err = run(half_done)
    assert code == 2 and "no checkpoint in" in err and "--restart" in err
    assert err.count("\n") == 1
    assert before == {p: p.read_bytes() for p in folder.rglob("*.npz")}


@pytest.mark.slow
def test_checkpoints_that_are_gone_are_an_error(half_done: Path) -> None:
    folder = half_done / "run/seed-0"
    shutil.rmtree(folder / "checkpoints")
    before = (folder / "metrics.csv").read_bytes()
    code, out, err = run(half_done)
    assert code == 2 and "but no checkpoint" in err and err.count("\n") == 1, err
    assert (folder / "metrics.csv").read_bytes() == before


@pytest.mark.slow
def test_restart_moves_the_old_run_aside(half_done: Path, reference: References) -> None:
    code, out, err = run(half_done, "none", "float32", "--restart")
    assert code == 0 and "seed-0.old-1" in out
    assert checkpoint.list_checkpoints(half_done / "run/seed-0.old-1")
    assert_same(half_done, reference["float32"])


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_checkpoint_and_say_so(signum: int, reference: References, tmp_path: Path) -> None:
    process = start(tmp_path, "wait:17", "float32")
    assert process.stdout is not None and process.stderr is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    # While it runs, a second process on the folder is refused.
    code, _, err = run(tmp_path)
    assert code == 2 and "another process is training" in err and err.count("\n") == 1
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert "stopping: saving a checkpoint; Ctrl-C again loses what came after update 14" in out
    assert own_lines(err).count("\n") == 1 and "at update 17" in err and "resumes" in err
    newest = checkpoint.list_checkpoints(tmp_path / "run/seed-0")[0]
    assert newest.name == "step-00000017.npz"
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 17 of 60" in out, err
    rows, results, weights = state(tmp_path)
    rows0, results0, weights0 = state(reference["float32"])
    assert rows == rows0 and results == results0
    assert all(np.array_equal(a, b) for a, b in zip(weights, weights0, strict=True))


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line(reference: References, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes every write beyond it fail, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, out, err = run(tmp_path, preexec_fn=limit)
    assert code == 2 and err.count("\n") == 1, err
    assert "step-00000007.npz could not be written (File too large)" in err
    assert not list(tmp_path.rglob(".tmp-*")) and not list(tmp_path.rglob("*.npz"))
    assert run(tmp_path)[0] == 0
    assert_same(tmp_path, reference["float32"])


@pytest.mark.slow
def test_a_reader_that_goes_away_stops_nothing(reference: References, tmp_path: Path) -> None:
    """`train.py | head -n 1`."""
    process = start(tmp_path, "wait:17", "float32")
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    process.stdout.close()
    process.send_signal(signal.SIGUSR1)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and own_lines(err) == "", err
    assert_same(tmp_path, reference["float32"])


@pytest.mark.slow
def test_a_folder_that_vanishes_in_mid_run(tmp_path: Path) -> None:
    """In place of a read-only folder, which does not stop root: a file where the folder was."""
    process = start(tmp_path, "wait:10", "float32")
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    folder = tmp_path / "run/seed-0/checkpoints"
    shutil.rmtree(folder)
    folder.write_text("in the way")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert own_lines(err).count("\n") == 1 and "could not be written" in err


@pytest.mark.slow
def test_runs_resumes_at_the_seed_under_way(tmp_path: Path) -> None:
    flags = ["--runs=2", "--steps=14", "--seed=3"]
    code, *_ = run(tmp_path, "update:20", "float32", *flags)
    assert code == -signal.SIGKILL
    first = (tmp_path / "run/seed-3/results.json").stat().st_mtime_ns
    code, out, err = run(tmp_path, "none", "float32", *flags)
    assert code == 0, err
    assert (
        "seed-3 is finished" in out
        and (tmp_path / "run/seed-3/results.json").stat().st_mtime_ns == first
    )
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["seeds"] == [3, 4] and summary["runs"] == 2
