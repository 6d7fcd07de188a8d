"""What all commands share: how an error ends, and how flags are made from a dataclass."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import typing
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any


class UserError(Exception):
    """Something the user can mend. The message says what was expected, what came and what to do.

    Commands print it as one line on stderr and exit with `exit_code`.
    """

    def __init__(self, message: str, exit_code: int = 2):
        super().__init__(message)
        self.exit_code = exit_code


class _Terminated(BaseException):
    """SIGTERM came where nothing has to be saved first."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def printable(value: object) -> str:
    """Text that is safe to print: what comes from files may hold control characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))


def tell(text: str) -> None:
    """Print a line of progress. Where its reader has gone (`| head`), work goes on without one."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _silence()


def _silence() -> None:
    """Let stdout go nowhere: Python would else flush it once more at exit and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit code; user errors and interrupts end in one line, no traceback.

    A reader of our output that goes away early (`| head`) is no error.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return command() or 0
    except _Terminated:
        print("terminated", file=sys.stderr)
        return 128 + signal.SIGTERM
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        _silence()
        return 0


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` whose errors are one line (exit code 2), without the usage text."""

    def error(self, message: str) -> typing.NoReturn:
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def add_flags(
    parser: argparse.ArgumentParser, settings: type, shown: Mapping[str, object] | None = None
) -> None:
    """Add a flag for each field of a dataclass; help and choices come from the field's metadata.

    `shown` names what stands as the default in the help text where the field's own is None.
    """
    types = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = types[field.name]
        optional = [t for t in typing.get_args(kind) if t is not type(None)]
        text = field.metadata["help"]
        value = field.default if field.default is not None else (shown or {}).get(field.name)
        default = "" if value is None else f" (default: {value})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=optional[0] if optional else kind,
            default=field.default,
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else field.name.split("_")[-1].upper(),
            help=text + default,
        )


def settings_from(arguments: argparse.Namespace, settings: type) -> Any:
    """Build the dataclass from parsed flags; its ValueError becomes a UserError."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(settings)}
    try:
        return settings(**values)
    except ValueError as error:
        raise UserError(str(error)) from None
