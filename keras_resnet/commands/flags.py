"""Flags: made from a dataclass, and those that several commands have."""

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.errors import did_you_mean
from keras_resnet.inference.zoo import DEFAULT, EXPECTED
from keras_resnet.runs.config import TrainConfig


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` with one line per error (exit code 2), no abbreviated flags, and hints for unknown ones.

    `hints`: name of a flag that does not exist -> makes a hint from the value that was given (or "").
    """

    def __init__(self, hints: Mapping[str, Callable[[str], str]] | None = None, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options, allow_abbrev=False)
        self.hints = hints or {}

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        arguments, unknown = self.parse_known_args(args, namespace)
        if not unknown:
            return arguments
        flag, _, value = unknown[0].partition("=")
        if not flag.startswith("-"):
            self.error(f"unexpected: {' '.join(unknown)}")
        name = flag.lstrip("-")
        if hint := self.hints.get(name):
            self.error(f"{flag} is not a flag: {hint(value or ' '.join(unknown[1:2]).lstrip('-'))}")
        known = [option.lstrip("-") for option in self._option_string_actions]
        self.error(f"{flag} is not a flag" + did_you_mean(name, known, "--"))

    def error(self, message: str) -> typing.NoReturn:
        console.print_error(f"error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def peek(argv: Sequence[str] | None, *names: str) -> list[str | None]:
    """The first values of some flags before all are parsed: defaults and --help depend on them."""
    parser = ArgumentParser(add_help=False)
    for name in names:
        parser.add_argument(name, nargs="?")
    return list(vars(parser.parse_known_args(argv)[0]).values())


def program(name: str) -> str:
    """A subcommand's name as it was called: by the script of a checkout, else by the package's command."""
    script = Path(sys.argv[0]).name
    return script if script == f"{name}.py" else f"keras-resnet {name}"


def add_flags(
    parser: argparse.ArgumentParser, shown: Mapping[str, object], several: Collection[str] = ()
) -> None:
    """Add a flag for each setting of a run, from its metadata: `help`, `choices`, and `group` for --help.

    `shown` are the defaults in the help text where the field's own is None. The flags of `several` take one
    value or more: a list, or None if it is not given.
    """
    groups: dict[str, Any] = {}
    kinds = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        group, text = field.metadata["group"], field.metadata["help"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        if field.default is False:
            groups[group].add_argument(f"--{field.name}", action="store_true", help=text)
            continue
        # X | None becomes X; get_type_hints has removed the bounds.
        optional = [t for t in typing.get_args(kinds[field.name]) if t is not type(None)]
        choices, many = field.metadata.get("choices"), field.name in several
        value = field.default if field.default is not None else shown.get(field.name)
        text += "" if value is None else f" (default: {value})"
        groups[group].add_argument(
            f"--{field.name.replace('_', '-')}",
            type=optional[0] if optional else kinds[field.name],
            default=None if many else field.default,
            nargs="+" if many else None,
            choices=choices,
            metavar=None if choices and not many else field.name.split("_")[-1].upper(),
            help=f"{', '.join(choices)}: {text}" if choices and many else text,
        )


def flags_of(config: Any) -> list[str]:
    """The flags that build these settings, without those of defaults: `["--depth=56"]`."""
    return [
        f"--{field.name.replace('_', '-')}" + ("" if value is True else f"={value}")
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
