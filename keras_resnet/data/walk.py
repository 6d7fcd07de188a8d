"""The folders below a folder, as users mean them: links are followed, hidden folders are left out."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or is what macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"


def walk(folder: Path, on_error: Callable[[OSError], object]) -> Iterator[tuple[Path, list[str]]]:
    """Each folder at or below `folder` once, with its files' names; `on_error` gets what is unreadable."""
    seen: set[str] = set()
    for parent, subfolders, names in os.walk(folder, onerror=on_error, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        if (place := os.path.realpath(parent)) in seen:
            subfolders.clear()
        else:
            seen.add(place)
            yield Path(parent), names
