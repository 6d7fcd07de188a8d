"""Flags: made from a dataclass, and those that several commands have."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.inference.zoo import DEFAULT, EXPECTED


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` whose errors are one line (exit code 2), without the usage text or abbreviated flags."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> typing.NoReturn:
        console.print_error(f"error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and breaks those that are wider than the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(line, width, break_on_hyphens=False) if len(line) > width else line
            for line in text.splitlines()
        )


def program(name: str) -> str:
    """A subcommand's name as it was called: by the script of a checkout, else by the package's command."""
    script = Path(sys.argv[0]).name
    return script if script == f"{name}.py" else f"keras-resnet {name}"


def add_flags(
    parser: argparse.ArgumentParser,
    settings: type,
    shown: Mapping[str, object] | None = None,
    several: Collection[str] = (),
) -> None:
    """Add a flag for each field of a dataclass; help and choices come from the field's metadata.

    Args:
        parser: to add them to.
        settings: the dataclass.
        shown: what stands as the default in the help text where the field's own is None.
        several: fields whose flag takes one value or more; it is a list, and None where it is not given.
    """
    types = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        kind = types[field.name]
        # X | None is X; get_type_hints has taken the bounds off.
        optional = [t for t in typing.get_args(kind) if t is not type(None)]
        text = field.metadata["help"]
        value = field.default if field.default is not None else (shown or {}).get(field.name)
        default = "" if value is None else f" (default: {value})"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=optional[0] if optional else kind,
            default=None if field.name in several else field.default,
            nargs="+" if field.name in several else None,
            choices=field.metadata.get("choices"),
            metavar=None if "choices" in field.metadata else field.name.split("_")[-1].upper(),
            help=text + default,
        )


def settings_from(arguments: argparse.Namespace, settings: type) -> Any:
    """Build the dataclass from parsed flags; its ValueError becomes a UserError."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(settings)}
    try:
        return settings(**values)
    except (TypeError, ValueError) as error:
        raise UserError(str(error)) from None


def flags_of(config: Any) -> list[str]:
    """The flags that give a dataclass of settings, but for defaults: `["--depth=56"]`."""
    return [
        f"--{field.name.replace('_', '-')}={value}"
        for field in dataclasses.fields(config)
        if (value := getattr(config, field.name)) != field.default
    ]


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """The `--model` of the commands, which `inference.zoo.resolve` makes a path."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"a trained net by a name that `keras-resnet models` lists, {EXPECTED}; a file or folder of "
        f"that name in the working directory comes first (default: the trained {DEFAULT})",
    )
