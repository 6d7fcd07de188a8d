"""What a run was made with (versions, git commit), and how to publish that without its folders."""

import contextlib
import functools
import importlib.metadata
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from keras_resnet._version import __version__
from keras_resnet.runs.folder import RunConfig

GIT_SECONDS = 10.0  # at most, where the folder is on a slow network disk
FOLDER_FLAGS = ("--data-dir", "--output-dir", "--output", "--runs-dir")


def versions(*packages: str) -> dict[str, str]:
    """Versions of this package, of those that decide a run's numbers, and of the named ones."""
    found = {"keras_resnet": __version__}
    for name in ("keras", *packages, "tensorflow-datasets", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache  # read once, as the checkout may change while this process trains
def git_commit() -> str | None:
    """Commit of the checkout this code runs from, with "+changes" if it differs; None outside one."""
    here = Path(__file__).resolve()
    if "site-packages" in here.parts:  # installed, maybe inside a checkout of another project
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"]
    options: Any = {"cwd": here.parent, "text": True, "stderr": subprocess.DEVNULL}
    try:
        return subprocess.check_output(command, timeout=GIT_SECONDS, **options).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory_mib() -> int | None:
    """Largest memory of this process so far; None on Windows, which has no such count."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)  # bytes on a Mac, else KiB


def without_folders(config: RunConfig) -> RunConfig:
    """config.json as it may be published: without the folders of the machine that made it."""

    def name_of(value: Any) -> Any:
        flag, equals, path = str(value).rpartition("=")
        return f"{flag}{equals}{Path(path).name}" if path.startswith("/") else value

    settings = {k: name_of(v) for k, v in config["settings"].items() if not k.endswith("_dir")}
    words = shlex.split(config.get("command", ""))
    kept = [
        name_of(word)
        for before, word in zip(["", *words], words, strict=False)
        if before not in FOLDER_FLAGS and word.partition("=")[0] not in FOLDER_FLAGS
    ]
    published: RunConfig = {**config, "settings": settings}
    if kept:
        published["command"] = shlex.join(kept)
    return published
