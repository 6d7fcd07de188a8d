"""How a command ends: errors and interrupts in one line, no traceback."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable
from types import FrameType

from keras_resnet import console, interrupts
from keras_resnet.errors import EXTRAS, USER_ERROR, UserError, missing
from keras_resnet.runs.config import TrainConfig

# Arguments of the library that are flags of a command.
FLAGS = {field.name for field in dataclasses.fields(TrainConfig)} | {
    "address", "data_dir", "dataset", "formats", "key", "mean", "model", "opset", "output", "padding",
    "plot", "quantize", "restart", "runtime", "serve", "shortcut", "split", "std",
}  # fmt: skip


class _Terminated(BaseException):
    """SIGTERM came where nothing has to be saved first."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def run(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; user errors and interrupts end in one line, no traceback.

    A reader of our output that goes away early (`| head`) is no error.
    """
    signal.signal(signal.SIGTERM, _terminate)
    console.print_any_character()
    try:
        interrupts.raise_again()
        return command() or 0
    except _Terminated:
        console.print_error("terminated")
        return 128 + signal.SIGTERM
    except UserError as error:
        console.print_error(error_line(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        console.print_error(error_line(missing(package)))
        return USER_ERROR
    except KeyboardInterrupt:
        console.print_error("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        console.silence()
        return 0


def signal_of(error: BaseException) -> int | None:
    """The signal that an exception stands for, if it does."""
    if isinstance(error, _Terminated):
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) else None


def error_line(error: UserError) -> str:
    """One line that tells of an error."""
    return with_flags(f"error: {error}")


def with_flags(message: str) -> str:
    """One line, with what the library calls `batch_size` as the user typed it: --batch-size."""
    line = " ".join(message.split())
    return re.sub(
        r"`([a-z_]+)`",
        lambda name: f"--{name[1].replace('_', '-')}" if name[1] in FLAGS else name[0],
        line,
    )
