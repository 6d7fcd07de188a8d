"""Convert a PyTorch checkpoint of a CIFAR ResNet to a .keras file.

    keras-resnet convert resnet56.th --padding split --output resnet56.keras

CHECKPOINT is a state_dict: safetensors, or what `torch.save` wrote, alone or
inside a larger checkpoint. Its layers are matched by shape and order
(docs/pytorch.md).

If mean and std are neither in the checkpoint nor those of the data set, give
them: `--mean` and `--std`, in units of 0..1.
"""

from collections.abc import Sequence
from pathlib import Path

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.data.constants import CLASS_NAMES, NORMALIZATION
from keras_resnet.errors import UserError
from keras_resnet.nets.family import MODELS, PADDINGS, SHORTCUTS
from keras_resnet.runs import files
from keras_resnet.runs.folder import refuse_foreign_folder


def main(argv: Sequence[str] | None = None) -> int:
    usage = "%(prog)s CHECKPOINT --output FILE [flags]"
    parser = flags.ArgumentParser(prog="keras-resnet convert", usage=usage, description=__doc__)
    add = parser.add_argument
    # fmt: off
    add("checkpoint", metavar="CHECKPOINT", type=Path)
    add("--depth", type=int, help="6n+2: 20, 32, 44, 56, 110, 1202 (default: the checkpoint's)")
    add("--output", type=Path, required=True, help="the .keras file to write; one that exists is replaced")
    add("--model", choices=MODELS, default="resnet", help="plain nets have no shortcuts (default: resnet)")
    add("--shortcut", choices=SHORTCUTS, help="(default: by the checkpoint, else zeropad)")
    add("--padding", choices=PADDINGS,
        help="where zeropad's new channels are: at the end, or split half before, half after (default: "
        "what fits --images, else what an export says, else what fits the data set, if it is here, "
        "else the end)")
    add("--dataset", choices=("cifar10", "cifar100"),
        help="what the net was trained on: gives mean and std (default: cifar10's), and the class names "
        "in labels.txt beside the net")
    for name in ("mean", "std"):
        text = f"{name} of the input, 0..1 (default: the checkpoint's, else the data set's)"
        add(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help=text)
    add("--key", help="which state_dict to read, if the file holds several")
    add("--images", type=Path, metavar="DIR", help="images of the data set, to choose the padding")
    # fmt: on
    given = parser.parse_args(argv)
    output, labels = given.output, given.output.parent / "labels.txt"
    if output.suffix != ".keras" or not output.parent.is_dir():
        raise UserError(f"`output` must be a .keras file in an existing folder. Received: {output}")
    refuse_foreign_folder(output.parent)
    startup.start_keras()
    import keras

    from keras_resnet.convert.checkpoint import read_checkpoint
    from keras_resnet.convert.padding import choose_padding, read_some_images
    from keras_resnet.convert.weights import convert
    from keras_resnet.inference.open import names_beside
    from keras_resnet.nets.describe import count_parameters, describe

    names = CLASS_NAMES.get(given.dataset, ())
    text = "".join(f"{name}\n" for name in names)
    if names and files.read_bytes(labels) not in (None, text.encode()):
        raise UserError(f"`dataset` would replace {labels}: name another folder with `output`")
    checkpoint = read_checkpoint(given.checkpoint, given.key)
    usual = [[value / 255 for value in part] for part in NORMALIZATION[given.dataset or "cifar10"]]
    mean, std = given.mean or checkpoint.mean or usual[0], given.std or checkpoint.std or usual[1]

    def convert_with(padding: str) -> keras.Model:
        options = {"model": given.model, "shortcut": given.shortcut, "padding": padding}
        return convert(checkpoint.tensors, given.depth, mean=mean, std=std, **options)

    padding = given.padding or (None if given.images else checkpoint.padding)
    net, chosen = convert_with(padding or "end"), ""
    if not padding and str(describe(net)["shortcut"]).startswith("zeropad"):
        images = read_some_images(given.images, given.dataset or "cifar10")
        net, chosen = choose_padding(net, convert_with, images)
    classes = net.output_shape[-1]
    if names and len(names) != classes:
        raise UserError(
            f"`dataset` must have the net's {classes} classes, or be left out, and `mean` and `std` given. "
            f"Received: {given.dataset}"
        )
    names = names or names_beside(output, classes)
    with files.atomic(output) as temporary:
        net.save(temporary)
    if text:
        files.write_atomic(labels, text)
    not_given = "the checkpoint's" if checkpoint.mean else "the data set's"
    numbers = ", ".join(f"{value:.4f}" for value in mean)
    ignored = ", ".join(checkpoint.ignored) or "nothing"
    console.print_line(
        f"{output}: {net.name}, {classes} classes, {count_parameters(net):,} trainable parameters, from "
        f"{len(checkpoint.tensors)} tensors of {given.checkpoint}\n"
        f"its input's mean is {'as given' if given.mean else not_given}: {numbers}; ignored: "
        f"{ignored}{chosen}"
    )
    if not names:
        console.print_line(
            "its classes have no names: --dataset or a labels.txt beside it gives them"
        )
    console.print_line(f"next: keras-resnet evaluate --model {output}")
    return 0
