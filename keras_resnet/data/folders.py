"""The user's own images: a folder with one subfolder per class, or an .npz file (`Dataset.from_folder`)."""

import contextlib
import math
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import console
from keras_resnet.data.images import find_images, read_image
from keras_resnet.data.walk import is_hidden
from keras_resnet.errors import UserError

IMAGE_SIZE = 32
_FEWER = "take fewer images, or smaller ones (`image_size`)"
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_NPZ = {
    "x_train": "train_images", "y_train": "train_labels",
    "x_test": "test_images", "y_test": "test_labels", "class_names": "class_names",
}  # fmt: skip


def read_folder(root: Path, size: int, unreadable: str) -> dict[str, Any]:
    """The arguments of `Dataset.from_arrays` that a folder holds."""
    parts = {name: root / name for name in ("train", "val", "test") if _subfolders(root / name)}
    inside = [folder.name for folder in _subfolders(root)]
    strange = [name for name in inside if name not in parts]
    if "train" not in parts:
        parts, strange = {"train": root}, [name for name in inside if name.lower() in _SPLITS]
    if strange:
        raise UserError(
            f"{root} must hold train/, and test/ or val/ or both, with a subfolder per class, or these. "
            f"Received: {', '.join(inside)}; rename or move {', '.join(strange)}"
        )
    names = [folder.name for folder in _subfolders(parts["train"])]
    if len(names) < 2:
        received = f"one class, {names[0]}" if names else "no subfolders"
        raise UserError(
            "`dataset` must be a folder with one subfolder per class, two or more (or with train/ and test/ "
            f"that have these). Received: {parts['train']}, with {received}"
        )
    files: list[tuple[str, int, Path]] = []
    for part, folder in parts.items():
        for subfolder in _subfolders(folder):
            if subfolder.name not in names:
                raise UserError(f"{subfolder} must be one of the classes {', '.join(names)}")
            paths, problems = find_images(subfolder)
            if problems:
                raise UserError(problems[0])
            files += [(part, names.index(subfolder.name), path) for path in paths]
    images, good = _decode(root, [path for *_, path in files], size, unreadable)
    if not all(good):
        images, files = images[good], [file for file, kept in zip(files, good, strict=True) if kept]
    labels = np.array([label for _, label, _ in files], np.int32)
    counts = Counter(part for part, *_ in files)
    if lost := [part for part in parts if not counts[part]]:
        raise UserError(f"{parts[lost[0]]} must hold images that can be read, but none can")
    val_count = counts["val"] if "test" in parts else 0  # without test/, val/ is the test set
    end = counts["train"] + val_count
    arrays = {"train_images": images[:end], "train_labels": labels[:end], "val_count": val_count}
    if end < len(files):
        arrays |= {"test_images": images[end:], "test_labels": labels[end:]}
    return {**arrays, "class_names": names}


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _decode(
    root: Path, files: Sequence[Path], size: int, unreadable: str
) -> tuple[np.ndarray, np.ndarray]:
    """The images of all files, and which of them could be read."""
    shape = len(files), size, size, 3
    what = f"with training's copies, {len(files):,} images of {size}x{size} need"
    refuse_what_does_not_fit(3 * math.prod(shape), what)
    images = np.empty(shape, np.uint8)

    def decode(index: int) -> str:
        try:
            images[index] = read_image(files[index], (size, size))
        except UserError as error:
            reason = str(error).partition(" could not be read as an image")[2]
            return f"{files[index].relative_to(root)}{reason}"
        return ""

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decoded = pool.map(decode, range(len(files)))
        problems = list(console.image_bar(len(files), decoded))
    if bad := [problem for problem in problems if problem]:
        text = f"{len(bad):,} of {len(files):,} files of {root} could not be read as images: "
        text += "; ".join(bad[:5]) + ("; ..." if len(bad) > 5 else "")
        if unreadable != "skip":
            raise UserError(f"{text}. Repair or remove them, or leave them out: `unreadable` skip")
        console.print_error(f"warning: left out {text}")
    return images, np.array([not problem for problem in problems])


def read_npz(path: Path, size: int | None) -> dict[str, Any]:
    """The arguments of `Dataset.from_arrays` that an .npz file holds; its images must have this `size`."""
    try:
        with open(path, "rb") as source:
            if not zipfile.is_zipfile(source):
                raise ValueError("it is another file, or damaged")
            source.seek(0)
            with np.load(source, allow_pickle=False) as file:
                total = sum(member.file_size for member in file.zip.infolist())
                what = f"with training's copies, the arrays of {path} need"
                refuse_what_does_not_fit(3 * total, what)
                arrays = {_NPZ[name]: file[name] for name in file.files if name in _NPZ}
    except UserError:
        raise
    except Exception as error:  # zipfile and NumPy raise many kinds on damaged files
        hint = (
            "; save names by .astype(str), numbers by .astype(int)"
            if "pickle" in str(error)
            else ""
        )
        raise UserError(f"{path} could not be read as an .npz file: {error}{hint}") from None
    needed = list(_NPZ)[:4]
    if missing := [name for name in needed if _NPZ[name] not in arrays]:
        raise UserError(f"{path} must hold {', '.join(needed)}. Missing: {', '.join(missing)}")
    sides = arrays["train_images"].shape[1:3]
    if size is not None and sides != (size, size):
        height_width = "x".join(map(str, sides))
        raise UserError(f"`image_size` must be left out: images of {path} are {height_width}")
    return arrays


def free_memory() -> int:
    """Bytes of memory that are free for programs; a large number where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    return 2**63


def refuse_what_does_not_fit(size: int, what: str, advice: str = _FEWER) -> None:
    """Raise UserError where this many bytes exceed the free memory; `what` ends in the verb."""
    if size > (free := free_memory()):
        raise UserError(
            f"{what} {size / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB are free: {advice}"
        )
