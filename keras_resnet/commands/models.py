"""List the trained nets that come with the package.

    keras-resnet models

predict and evaluate take a name with --model, export takes it as PATH.
"""

from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags
from keras_resnet.inference import zoo


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog="keras-resnet models", usage="%(prog)s", description=__doc__)
    parser.parse_args(argv)
    lines = ["name       parameters  dataset  recipe    updates  seed  val. %  test %  commit"]
    for net in zoo.entries():
        val_error = "-" if net.val_error is None else f"{net.val_error:.2f}"
        lines.append(
            f"{net.name:<9}  {net.parameters:10,}  {net.dataset:<7}  {net.recipe:<8}  {net.steps:7,}  "
            f"{net.seed:4}  {val_error:>6}  {net.test_error:6.2f}  {net.commit[:7]}"
        )
    lines += ["", "val. and test: error in percent of the validation and the test images;"]
    lines += ["a dash: the net was trained on all images, with none left for validation."]
    lines += ["predict and evaluate take a name with --model, export takes it as PATH."]
    console.print_result("\n".join(lines))
    return 0
