"""The user's own images: a folder with one subfolder per class, or an .npz file.

photos/cat/1.jpg, photos/dog/7.png, ...                   a fifth of each class is the test set
photos/train/cat/1.jpg, ..., photos/test/cat/2.jpg, ...   taken as they are; val/ too
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from keras_resnet import console
from keras_resnet.data.images import read_image
from keras_resnet.errors import UserError

IMAGE_SIZE = 32
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".tif", ".tiff", ".webp",
)  # fmt: skip
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
_NPZ = {
    "x_train": "train_images", "y_train": "train_labels",
    "x_test": "test_images", "y_test": "test_labels", "class_names": "class_names",
}  # fmt: skip


def read_folder(root: Path, size: int, unreadable: str) -> dict[str, Any]:
    """The arguments of `Dataset.from_arrays` that a folder holds.

    Args:
        root: the folder.
        size: height and width that every image is resized to.
        unreadable: `"refuse"` or `"skip"` files that cannot be read as images.

    Raises:
        UserError: for a folder of another form, images that cannot be read or do not fit in memory.
    """
    parts = {name: root / name for name in ("train", "val", "test") if _subfolders(root / name)}
    inside = [folder.name for folder in _subfolders(root)]
    if "train" in parts:
        strange = [name for name in inside if name not in ("train", "val", "test")]
    else:
        parts = {"train": root}
        strange = [name for name in inside if name.lower() in _SPLITS]
    if strange:
        raise UserError(
            f"{root} must hold train/, and test/ or val/ or both, or one subfolder per class. Received: "
            f"{', '.join(inside)}; rename or move {', '.join(strange)}"
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
                raise UserError(
                    f"{subfolder} must be one of the classes of train/: {', '.join(names)}"
                )
            label = names.index(subfolder.name)
            found = [
                (part, label, path)
                for path in sorted(subfolder.rglob("*"))
                if is_image(path) and not _is_hidden(path.relative_to(subfolder))
            ]
            if not found:
                raise UserError(
                    f"{subfolder} must hold images ({' '.join(SUFFIXES)}), but has none: put some there, "
                    "or remove it"
                )
            files += found
    images, good = _decode(root, [path for *_, path in files], size, unreadable)
    if not all(good):
        images, files = images[good], [file for file, kept in zip(files, good, strict=True) if kept]
    labels = np.array([label for _, label, _ in files], np.int32)
    counts = Counter(part for part, *_ in files)
    # Without test/, val/ is the test set.
    val_count = counts["val"] if counts["test"] else 0
    end = counts["train"] + val_count
    arrays = {"train_images": images[:end], "train_labels": labels[:end], "val_count": val_count}
    if end < len(files):
        arrays |= {"test_images": images[end:], "test_labels": labels[end:]}
    return {**arrays, "class_names": names}


def is_image(path: Path) -> bool:
    """Whether it is a file with the suffix of an image, and not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _is_hidden(path: Path) -> bool:
    """Whether a part of it begins with a dot, or is what macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not _is_hidden(Path(p.name)))
    except OSError:
        return []


def _decode(
    root: Path, files: Sequence[Path], size: int, unreadable: str
) -> tuple[np.ndarray, np.ndarray]:
    """The images of all files, and which of them could be read."""
    refuse_what_does_not_fit(
        len(files) * size * size * 3, f"{len(files):,} images of {size}x{size}"
    )
    images = np.empty((len(files), size, size, 3), np.uint8)

    def decode(index: int) -> str:
        try:
            images[index] = read_image(files[index], (size, size))
        except UserError as error:
            reason = str(error).partition(" could not be read as an image")[2]
            return f"{files[index].relative_to(root)}{reason}"
        return ""

    # Shown where stderr is a terminal.
    bar = {"unit": "image", "disable": None, "dynamic_ncols": True, "leave": False}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(tqdm(pool.map(decode, range(len(files))), total=len(files), **bar))
    if bad := [problem for problem in problems if problem]:
        text = f"{len(bad):,} of {len(files):,} files of {root} could not be read as images: "
        text += "; ".join(bad[:5]) + ("; ..." if len(bad) > 5 else "")
        if unreadable != "skip":
            raise UserError(f"{text}. Mend or remove them, or leave them out: `unreadable` skip")
        console.print_error(f"warning: left out {text}")
    return images, np.array([not problem for problem in problems])


def read_npz(path: Path, size: int | None) -> dict[str, Any]:
    """The arguments of `Dataset.from_arrays` that an .npz file holds; its images must have this `size`.

    Raises:
        UserError: for a file that is no .npz file, lacks an array or does not fit in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        refuse_what_does_not_fit(total, f"the arrays of {path}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {_NPZ[name]: file[name] for name in file.files if name in _NPZ}
        shape = arrays["train_images"].shape if "train_images" in arrays else ()
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} could not be read as an .npz file: {error}") from None
    needed = list(_NPZ)[:4]
    if missing := [name for name in needed if _NPZ[name] not in arrays]:
        raise UserError(f"{path} must hold {', '.join(needed)}. Missing: {', '.join(missing)}")
    height, width = (*shape[1:3], 0, 0)[:2]
    if size is not None and (height, width) != (size, size):
        raise UserError(f"`image_size` must be left out: the images of {path} are {height}x{width}")
    return arrays


def free_memory() -> int:
    """Bytes of memory that are free for programs; a large number where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)
    return 2**63


def refuse_what_does_not_fit(size: int, what: str) -> None:
    """Raise UserError where images of so many bytes, with training's copies, exceed the free memory."""
    if 3 * size > (free := free_memory()):
        raise UserError(
            f"{what} need {3 * size / 2**30:.1f} GiB of memory with training's copies, but "
            f"{free / 2**30:.1f} GiB are free: give a smaller `image_size`, or fewer images"
        )
