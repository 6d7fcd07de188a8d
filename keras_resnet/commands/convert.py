"""A PyTorch checkpoint of a CIFAR ResNet becomes our net.

    keras-resnet convert resnet56.th --depth 56 --padding split --output resnet56.keras

CHECKPOINT is a state_dict: safetensors, or what `torch.save` wrote (.pt, .pth, .th, .ckpt, .tar),
alone or inside a larger checkpoint. Its layers are matched by shape and order (see matching.py).

Give the constants that the net was trained with: `--mean` and `--std`, in units of 0..1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.data.constants import CLASS_NAMES, NORMALIZATION
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS, PADDINGS, SHORTCUTS
from keras_resnet.runs import files
from keras_resnet.runs.folder import MAX_JSON_BYTES, refuse_foreign_folder


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(
        prog="keras-resnet convert",
        description=__doc__,
        formatter_class=flags.HelpFormatter,
    )
    rgb: dict[str, Any] = {"type": float, "nargs": 3, "metavar": ("R", "G", "B")}
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path)
    parser.add_argument("--depth", type=int, required=True, help="6n+2: 20, 32, 44, 56, 110, 1202")
    parser.add_argument("--output", type=Path, required=True, help="the .keras file to write")
    parser.add_argument("--model", choices=MODELS, default="resnet")
    parser.add_argument("--shortcut", choices=SHORTCUTS, default="zeropad")
    parser.add_argument(
        "--padding",
        choices=PADDINGS,
        default="end",
        help="where zeropad's new channels are: at the end, or split half before, half after "
        "(F.pad(..., planes//4, planes//4))",
    )
    parser.add_argument(
        "--dataset",
        choices=("cifar10", "cifar100"),
        help="whose mean and std the input was normalized with (default: cifar10's); its class names "
        "are written to labels.txt beside the net",
    )
    parser.add_argument("--mean", **rgb, help="of the input, 0..1 (default: the data set's)")
    parser.add_argument("--std", **rgb, help="of the input, 0..1 (default: the data set's)")
    parser.add_argument("--key", help="which state_dict, if the file holds several")
    arguments = parser.parse_args(argv)
    if arguments.output.suffix != ".keras":
        raise UserError(f"--output must end in .keras. Received: {arguments.output}")
    if not arguments.output.parent.is_dir():
        raise UserError(
            f"--output must be in a folder that exists. Received: {arguments.output}; make "
            f"{arguments.output.parent} first"
        )
    for name, low in (("mean", 0.0), ("std", 1e-6)):
        values = getattr(arguments, name)
        if values and not all(low <= value <= 1 for value in values):
            raise UserError(
                f"--{name} must be in units of 0..1 (divide pixel units by 255). Received: {values}"
            )
    startup.start_keras()
    from keras_resnet.convert.checkpoint import read_checkpoint
    from keras_resnet.convert.weights import convert

    refuse_foreign_folder(arguments.output.parent)
    names = CLASS_NAMES[arguments.dataset] if arguments.dataset else ()
    labels, text = arguments.output.with_name("labels.txt"), "".join(f"{n}\n" for n in names)
    if arguments.dataset and files.read_bytes(labels, MAX_JSON_BYTES) not in (None, text.encode()):
        raise UserError(
            f"{labels} is there already, and --dataset would replace it: name another folder with "
            "--output"
        )
    tensors = read_checkpoint(arguments.checkpoint, arguments.key)
    if arguments.dataset == "cifar100":  # cifar10's are the default
        mean, std = NORMALIZATION["cifar100"]
        arguments.mean = arguments.mean or [value / 255 for value in mean]
        arguments.std = arguments.std or [value / 255 for value in std]
    chosen = ("depth", "model", "shortcut", "padding", "mean", "std")
    net = convert(tensors, **{name: getattr(arguments, name) for name in chosen})
    if arguments.dataset and len(names) != net.output_shape[-1]:
        raise UserError(
            f"--dataset {arguments.dataset} has {len(names)} classes. Received: a net of "
            f"{net.output_shape[-1]}; leave it out, and give its --mean and --std"
        )
    with files.atomic(arguments.output) as temporary:
        net.save(temporary)
    if arguments.dataset:
        files.write_atomic(labels, text)
    trainable = sum(math.prod(variable.shape) for variable in net.trainable_variables)
    console.print_line(
        f"{arguments.output}: {net.name}, {net.output_shape[-1]} classes, {trainable:,} trainable "
        f"parameters, from {len(tensors)} tensors of {arguments.checkpoint}\n"
        f"next: keras-resnet evaluate --model {arguments.output}"
    )
    return 0
