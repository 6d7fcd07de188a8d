"""Whatever happens to a run, the same command again gives the bits of an undisturbed one."""

import functools
import os
import random
import re
import resource
import shutil
import signal
from pathlib import Path

import pytest

from keras_resnet.runs import checkpoint
from tests.helpers import contents, start_python, state_of

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("fault_driver.py")
FLAGS = [
    "--depth=8", "--dataset=synthetic", "--val-size=100", "--batch-size=8", "--name=run",
    "--steps=60", "--checkpoint-every=7", "--eval-every=10",
]  # fmt: skip
FLOAT32 = ["--precision=float32"]
# Flags of each case, and where its run is killed: at some random updates (few where an update takes long),
# which each life counts anew, and inside the writing of checkpoints and metrics.
CASES = {
    "float32": (FLOAT32, 3, ["write:1", "rename:3", "renamed:2"]),
    "fast-float32": ([*FLOAT32, "--recipe=fast"], 3, ["write:2", "rename:2"]),
    "fast-float16": (["--precision=mixed_float16", "--recipe=fast"], 1, []),
}


def start(output, fault, *flags, **options):
    return start_python(DRIVER, fault, *FLAGS, f"--output-dir={output}", *flags, **options)


def end(process):
    """Exit code, stdout and stderr, without the notes that TensorFlow writes when it starts."""
    out, err = process.communicate(timeout=240)
    noise = re.compile(r"^([IWE]\d{4} |WARNING: All log|To enable the following|\s*$)")
    own = "".join(line for line in err.splitlines(True) if not noise.match(line))
    return process.returncode, out, own


def run(output, fault="none", *flags, **options):
    return end(start(output, fault, *(flags or FLOAT32), **options))


def waiting(output, update):
    """A run that waits at an update for a signal."""
    process = start(output, f"wait:{update}", *FLOAT32)
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    return process


def state(output):
    return state_of(output / "run/seed-0")


def assert_same(output, reference):
    assert state(output) == state(reference)
    assert [row["step"] for row in state(output)[0]] == [10, 20, 30, 40, 50, 60]
    assert not list(output.rglob(".tmp-*"))
    assert names(output) == ["step-00000060.npz", "step-00000056.npz"]


def names(output):
    return [path.name for path in checkpoint.list_checkpoints(output / "run/seed-0")]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of the uninterrupted run of a case."""

    @functools.cache
    def reference(case):
        folder = tmp_path_factory.mktemp(case)
        code, _, err = run(folder, "none", *CASES[case][0])
        assert code == 0, err
        return folder

    return reference


@pytest.mark.parametrize("case", CASES)
def test_killed_again_and_again_ends_with_the_same_bits(case, reference, tmp_path):
    """One run is killed and resumed until it ends; deaths that come too late for it hit nothing."""
    flags, kills, writing = CASES[case]
    rng, killed = random.Random(case), 0
    faults = [*(f"update:{rng.randint(2, 14)}" for _ in range(kills)), *writing]
    for fault in faults:
        code, _, err = run(tmp_path, fault, *flags)
        assert code in (0, -signal.SIGKILL), err
        killed += code != 0
        if code == 0:
            assert_same(tmp_path, reference(case))
            shutil.rmtree(tmp_path / "run")
    code, _, err = run(tmp_path, "none", *flags)
    assert code == 0, err
    assert_same(tmp_path, reference(case))
    assert killed >= 0.7 * len(faults)
    arrays, _ = checkpoint.load(tmp_path / "run/seed-0/checkpoints/step-00000060.npz")
    # The loss scaling has a count of its own, which stays at 0.
    made = max(int(value) for name, value in arrays.items() if name.endswith("/iteration"))
    assert (made < 60) is (case == "fast-float16"), "float16 skips updates that overflow"


def test_killed_inside_the_final_save(reference, tmp_path):
    assert run(tmp_path, "save:1")[0] == -signal.SIGKILL
    folder = tmp_path / "run/seed-0"
    assert not (folder / "model.keras").exists() and not (folder / "results.json").exists()
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 60 of 60" in out, err
    assert_same(tmp_path, reference("float32"))


@pytest.fixture
def half_done(tmp_path):
    """A run that was killed at update 30; its checkpoints are those of 28 and 21."""
    assert run(tmp_path, "update:30")[0] == -signal.SIGKILL
    assert names(tmp_path) == ["step-00000028.npz", "step-00000021.npz"]
    return tmp_path


def test_a_damaged_newest_checkpoint_is_passed_over(half_done, reference):
    newest = checkpoint.list_checkpoints(half_done / "run/seed-0")[0]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    code, out, err = run(half_done)
    assert code == 0 and "resuming at update 21 of 60" in out, err
    assert "step-00000028.npz is damaged" in err
    assert_same(half_done, reference("float32"))


def test_no_good_checkpoint_is_an_error_and_deletes_nothing(half_done, reference):
    folder = half_done / "run/seed-0"
    for path in checkpoint.list_checkpoints(folder):
        os.truncate(path, path.stat().st_size // 3)
    before = contents(folder)
    code, _, err = run(half_done)
    assert code == 2 and "no checkpoint in" in err and "--restart" in err and err.count("\n") == 1
    assert contents(folder) == before
    code, out, err = run(half_done, "none", *FLOAT32, "--restart")
    assert code == 0 and "seed-0.old-1" in out, err
    assert (half_done / "run/seed-0.old-1/metrics.csv").exists()
    assert_same(half_done, reference("float32"))


def test_a_signal_checkpoints_and_says_so(reference, tmp_path):
    process = waiting(tmp_path, 17)
    # While it runs, a second process on the folder is refused.
    code, _, err = run(tmp_path)
    assert code == 2 and "another process is training" in err and err.count("\n") == 1
    process.send_signal(signal.SIGINT)
    code, out, err = end(process)
    assert code == 128 + signal.SIGINT
    assert "stopping: saving a checkpoint; a second signal loses what came after update 14" in out
    assert err.count("\n") == 1 and "at update 17" in err and "resumes" in err
    assert names(tmp_path)[0] == "step-00000017.npz"
    code, out, err = run(tmp_path)
    assert code == 0 and "resuming at update 17 of 60" in out, err
    assert state(tmp_path) == state(reference("float32"))


def test_a_full_disk_ends_in_one_line(reference, tmp_path):
    """RLIMIT_FSIZE makes every write beyond it fail, as a full disk does."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, _, err = run(tmp_path, preexec_fn=limit)
    assert code == 2 and err.count("\n") == 1, err
    assert "step-00000007.npz could not be written (File too large)" in err
    assert not list(tmp_path.rglob(".tmp-*")) and not list(tmp_path.rglob("*.npz"))
    assert run(tmp_path)[0] == 0
    assert_same(tmp_path, reference("float32"))


def test_a_reader_that_goes_away_stops_nothing(reference, tmp_path):
    """`train.py | head -n 1`."""
    process = waiting(tmp_path, 17)
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGUSR1)
    code, _, err = end(process)
    assert code == 0 and err == "", err
    assert_same(tmp_path, reference("float32"))
