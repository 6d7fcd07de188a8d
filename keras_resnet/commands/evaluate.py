"""Measure a trained net on a data set: error, speed, errors by class, confusions.

keras-resnet evaluate --model resnet20
keras-resnet evaluate --model experiments/resnet56/seed-0 --plot confusion.png
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.data import datasets
from keras_resnet.data.constants import CLASS_NAMES
from keras_resnet.errors import UserError
from keras_resnet.inference.confusion import check_plot, error_table, plot
from keras_resnet.inference.evaluate import evaluate
from keras_resnet.inference.open import run_config


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog="keras-resnet evaluate", description=__doc__)
    flags.add_model_flag(parser)
    add = parser.add_argument
    # fmt: off
    add("--dataset", metavar="NAME|PATH",
        help="what to measure on (default: what the files beside the model say, else cifar10)")
    add("--data-dir", metavar="DIR",
        help="folder of tensorflow_datasets (default: the run's where it is here, else "
        "$TFDS_DATA_DIR, else ~/tensorflow_datasets)")
    add("--split", choices=("test", "train"), default="test", help="part of it (default: %(default)s)")
    add("--plot", metavar="FILE", help="draw the confusion matrix: .png, .svg or .pdf")
    add("--json", action="store_true", help="one JSON object on stdout")
    # fmt: on
    arguments = parser.parse_args(argv)
    if arguments.plot is not None:
        check_plot(Path(arguments.plot))
    classifier = startup.load_classifier(arguments.model)
    folder = classifier.path.parent
    config: Any = run_config(folder) or run_config(folder.parent) or {}  # an export is in its run
    settings = config.get("settings", {})
    same = [name for name, names in CLASS_NAMES.items() if names == classifier.class_names]
    name = arguments.dataset or settings.get("dataset") or next(iter(same), "cifar10")
    console.print_status(f"loading {name}")
    recorded = settings.get("data_dir")
    folder = datasets.folder_of(name, arguments.data_dir, recorded, asked=arguments.dataset)
    data = datasets.load_for_net(name, str(folder), classifier.image_size)
    data.check_classes(classifier.class_names)
    if not arguments.dataset and config.get("content_hash", data.content_hash) != data.content_hash:
        console.print_error(
            f"warning: {data.name} does not hold the images that the net was trained with: some of its "
            "training images may be among the tested ones"
        )
    images, labels = (getattr(data, f"{arguments.split}_{kind}") for kind in ("images", "labels"))
    with console.image_bar(len(images)) as bar:
        try:
            result = evaluate(classifier, images, labels, bar.update)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{name} does not fit the net: {str(error).replace('`', '')}") from None
    title = f"{data.name}, {arguments.split} split"
    text = (
        f"model:  {classifier.path} ({classifier.format})\n"
        f"data:   {title}, {result.images:,} images\n"
        f"error:  {result.error:.2f} % ({result.wrong:,} images)\n"
        f"loss:   {result.loss:.4f}\n"
        f"speed:  {result.images_per_second:,.0f} images/s\n"
        f"\n{error_table(result, data.class_names)}"
    )
    if arguments.json:
        values = {
            "model": str(classifier.path),
            "format": classifier.format,
            "dataset": data.name,
            "split": arguments.split,
            "images": result.images,
            "error": result.error,
            "loss": result.loss,
            "images_per_second": result.images_per_second,
            "class_names": list(data.class_names),
            "class_errors": [round(e, 6) for e in result.class_errors.tolist()],
            "confusion": result.confusion.tolist(),
        }
        text = json.dumps(values, indent=2)
    console.print_result(text)
    if arguments.plot:
        plot(Path(arguments.plot), result, data.class_names, title)
        console.print_status(f"wrote {arguments.plot}")
    return 0
