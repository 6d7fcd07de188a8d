"""What a run was made with: versions and git commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from keras_resnet._version import __version__

PACKAGES = ("keras", "tensorflow-datasets", "numpy")
GIT_SECONDS = 10.0  # a folder on a slow network disk is no reason to wait longer


def versions(backend: str = "tensorflow") -> dict[str, str]:
    """Versions of this package and of those that decide a run's numbers, Keras's backend among them."""
    found = {"keras_resnet": __version__}
    for package in (PACKAGES[0], backend, *PACKAGES[1:]):
        found[package] = version_of(package)
    return found


def version_of(package: str) -> str:
    """E.g. `"3.15.1"`, or `"not installed"`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """Commit of the checkout this code runs from, with "+changes" if it differs; None outside one."""
    here = Path(__file__).resolve().parent
    try:
        # A copy that pip installed may lie inside a checkout, of another project even.
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "-uno") else "")
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


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=GIT_SECONDS,
    ).stdout.strip()
