"""Errors that the user can fix, exit codes, and checks of argument types.

A message says what was expected, what came and what to do. It names settings in backticks, as the
library calls them (`batch_size`); commands print those as their flags (--batch-size).
"""

import difflib
import math
import operator
from collections.abc import Iterable
from numbers import Real

# Exit codes, besides 0 (done), 1 (some inputs failed) and 128 + n (stopped by signal n).
USER_ERROR = 2  # something to fix
DIVERGED = 3  # the loss became NaN or infinite
DISAGREES = 4  # an exported file does not compute what Keras computes
LOST = 5  # a process of a run on several hosts did not join in time

# Package -> the extra of this package that installs it.
EXTRAS = {
    "onnx": "export", "tf2onnx": "export", "onnxruntime": "onnx", "safetensors": "convert",
    "tensorflow": "tensorflow", "torch": "torch", "matplotlib": "report", "ray": "sweep", "rich": "sweep",
    "wandb": "wandb", "mlflow": "mlflow", "openvino": "openvino",
}  # fmt: skip


class UserError(ValueError):
    """Something the user can fix. Commands print it as one line on stderr, and exit with `exit_code`."""

    def __init__(self, message: str, exit_code: int = USER_ERROR):
        super().__init__(message)
        self.exit_code = exit_code


def missing(package: str, needed_by: str = "this") -> UserError:
    """The error for a package of `EXTRAS` that is not installed."""
    name = "PyTorch" if package == "torch" else package
    return UserError(
        f"{needed_by} needs {name}, which is not installed: pip install {package}, or in the checkout "
        f"pip install -e '.[{EXTRAS[package]}]'"
    )


def did_you_mean(word: str, known: Iterable[str], before: str = "") -> str:
    """The end of a message on a misspelt word: "; did you mean train?", or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {before}{found[0]}?" if found else ""


def integer(name: str, value: object) -> int:
    """`value` as an int; NumPy's integers are accepted. Raises TypeError, naming the argument."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"`{name}` must be an integer. Received: {name}={value!r}") from None


def number(name: str, value: object) -> float:
    """`value` as a finite float. Raises TypeError or UserError, naming the argument."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"`{name}` must be a number. Received: {name}={value!r}")
    if not math.isfinite(value):
        raise UserError(f"`{name}` must be a finite number. Received: {name}={value}")
    return float(value)
