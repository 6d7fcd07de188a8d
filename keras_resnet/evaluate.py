"""Measure a trained net on a data set: error, loss, speed, errors by class, confusion matrix.

python -m keras_resnet.evaluate
python -m keras_resnet.evaluate --model experiments/resnet56/seed-0 --plot confusion.png
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet import cli, datasets, runs
from keras_resnet.config import DATASETS
from keras_resnet.inference import CHUNK, Classifier, add_model_flag

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
_EPSILON = 1e-7  # Keras's: probabilities are clipped to it before the logarithm of the loss
_WIDE = 20  # classes; with more the confusion matrix is not printed, and plotted without numbers


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measures.

    Attributes:
        confusion: int64 `(classes, classes)`: images of class [row] that were taken for [column].
        loss: mean cross-entropy, nats.
        images_per_second: of `Classifier.predict`, after a warm-up.
    """

    confusion: np.ndarray
    loss: float
    images_per_second: float

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def wrong(self) -> int:
        return self.images - int(np.trace(self.confusion))

    @property
    def error(self) -> float:
        """Percent."""
        return 100 * self.wrong / self.images


def evaluate(classifier: Classifier, images: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Run the net over images, uint8 `(N, height, width, 3)`, with labels, integer `(N,)`.

    Raises:
        ValueError: if there is no image, they do not pair up, or a label is out of range.
    """
    classes = len(classifier.class_names)
    if not 0 < len(images) == len(labels) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels must be one an image, 0..{classes - 1}. Received: {len(images)} images and "
            f"{len(labels)} labels"
        )
    for warm_up in {min(CHUNK, len(images)), len(images) % CHUNK or CHUNK}:
        classifier.predict(images[:warm_up])  # a graph may be compiled for each size of a chunk
    start = time.perf_counter()
    probabilities = classifier.predict(images)
    seconds = time.perf_counter() - start
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(axis=1)), 1)
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    loss = float(-np.log(np.clip(true, _EPSILON, 1)).mean())
    return Evaluation(confusion, loss, len(images) / seconds)


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(
        prog="python -m keras_resnet.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_flag(parser)
    parser.add_argument(
        "--dataset",
        choices=DATASETS,
        help="(default: what the files beside the model say, else cifar10)",
    )
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder of tensorflow_datasets (default: the run's where it is here, else "
        "$TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="draw the confusion matrix: .png, .svg or .pdf"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    if arguments.plot:
        _check_plot(Path(arguments.plot))  # before the work, not after it
    classifier = Classifier.load(arguments.model)
    recorded, folder = _recorded(classifier)
    name = arguments.dataset or recorded
    data = datasets.load(name, str(datasets.folder_of(name, arguments.data_dir, recorded=folder)))
    _check_classes(classifier, data)
    if arguments.split == "test":
        images, labels = data.test_images, data.test_labels
    else:
        images, labels = data.train_images, data.train_labels
    result = evaluate(classifier, images, labels)
    title = f"{data.name}, {arguments.split} split"
    if arguments.plot:
        plot(Path(arguments.plot), result, data.class_names, title)
    if arguments.json:
        print(json.dumps(_as_json(classifier, result, data, arguments.split), indent=2))
    else:
        print(f"model:  {classifier.path} ({classifier.format})")
        print(f"data:   {title}, {result.images:,} images")
        print(f"error:  {result.error:.2f} % ({result.wrong:,} images)")
        print(f"loss:   {result.loss:.4f}")
        print(f"speed:  {result.images_per_second:,.0f} images/s")
        print(f"\n{_table(result, data.class_names)}")
        if arguments.plot:
            print(f"\nconfusion matrix: {arguments.plot}")
    return 0


def _recorded(classifier: Classifier) -> tuple[str, str | None]:
    """The data set, and its folder, that config.json of a run or export.json beside the model names.

    Else cifar10.
    """
    for file in ("config.json", "export.json"):
        try:
            found: object = runs.read_json(classifier.path.parent / file)
        except (cli.UserError, RecursionError):
            continue  # no file of ours
        if file == "config.json" and isinstance(found, dict):
            found = found.get("settings")
        if isinstance(found, dict) and found.get("dataset") in DATASETS:
            folder = found.get("data_dir")
            return found["dataset"], folder if isinstance(folder, str) else None
    return "cifar10", None


def _check_classes(classifier: Classifier, data: datasets.Dataset) -> None:
    names, expected = classifier.class_names, data.class_names
    unnamed = names == tuple(f"class {k}" for k in range(len(names)))
    if len(names) != len(expected) or (names != expected and not unnamed):
        raise cli.UserError(
            f"the model's classes must be those of {data.name} ({len(expected)}: {expected[0]}, "
            f"{expected[1]}, ...). Received: {len(names)}: {names[0]}, {names[1]}, ...; name the "
            "model's data set with --dataset"
        )


def _as_json(
    classifier: Classifier, result: Evaluation, data: datasets.Dataset, split: str
) -> dict[str, object]:
    return {
        "model": str(classifier.path),
        "format": classifier.format,
        "dataset": data.name,
        "split": split,
        "images": result.images,
        "error": result.error,
        "loss": result.loss,
        "images_per_second": result.images_per_second,
        "class_names": list(data.class_names),
        "class_errors": [round(e, 6) for e in _class_errors(result.confusion).tolist()],
        "confusion": result.confusion.tolist(),
    }


def _class_errors(confusion: np.ndarray) -> np.ndarray:
    """Percent of each class's images that are taken for another; 0 for a class without images."""
    images = confusion.sum(axis=1)
    return 100 * (images - np.diag(confusion)) / np.maximum(images, 1)


def _table(result: Evaluation, names: Sequence[str]) -> str:
    """Errors by class, and the confusion matrix unless it would be too wide for a terminal."""
    confusion, width = result.confusion, max(map(len, [*names, "class"]))
    lines = [f"{'class':<{width}}  images  errors  error %  most often taken for"]
    others = confusion - np.diag(np.diag(confusion))
    for name, row, wrong, error in zip(
        names, confusion, others, _class_errors(confusion), strict=True
    ):
        taken = f"{names[wrong.argmax()]} ({wrong.max():,})" if wrong.any() else "-"
        lines.append(f"{name:<{width}}  {row.sum():6,}  {wrong.sum():6,}  {error:7.2f}  {taken}")
    if len(names) <= _WIDE:
        cell = max(len(str(confusion.max())), 4)
        lines += [
            "",
            "confusion matrix: a row a true class, a column a predicted one, in the same order",
        ]
        for name, row in zip(names, confusion, strict=True):
            lines.append(f"{name:<{width}}  " + " ".join(f"{count:{cell}}" for count in row))
    return "\n".join(lines)


# --- plot -----------------------------------------------------------------------------------------


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise cli.UserError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}. Received: {path}")
    if not path.parent.is_dir():
        raise cli.UserError(f"--plot must be in a folder that exists. Received: {path}")
    if importlib.util.find_spec("matplotlib") is None:
        raise cli.UserError(
            "--plot needs matplotlib (the extra 'report'), which is not installed: "
            "pip install matplotlib"
        )


def plot(path: Path, result: Evaluation, names: Sequence[str], title: str) -> None:
    """Draw the confusion matrix to a .png, .svg or .pdf file.

    One hue from light to dark, which any reader can order; it goes with the square root of the
    percent, so that the few percent off the diagonal show. Up to 20 classes the cells hold numbers.

    Raises:
        UserError: if the file cannot be written.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    confusion, count = result.confusion, len(names)
    percent = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = max(6.0, 0.62 * count) if count <= _WIDE else 0.15 * count
    font = 9 if count <= _WIDE else 7
    figure = Figure(figsize=(side + 2.2, side + 1.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    axes.set_xticks(range(count), names, rotation=90 if count > _WIDE else 45, fontsize=font)
    if count <= _WIDE:
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), names, fontsize=font)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{title}: error {result.error:.2f} % of {result.images:,} images")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
    bar.set_label("percent of the true class's images")
    if count <= _WIDE:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = "white" if percent[row, column] > 35 else "black"
            axes.text(
                column, row, f"{confusion[row, column]}",
                ha="center", va="center", color=color, fontsize=8,
            )  # fmt: skip
    with runs.atomic(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    sys.exit(cli.run(main))
