"""Watch over one of several processes that train a run together.

When another process of a run dies, JAX's runtime ends this one, with a stack trace, or leaves it waiting in
a collective operation. So the training is a child of the command, whose last words can be ours: one line.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from typing import Any, NoReturn, TextIO

from keras_resnet import console
from keras_resnet.commands import terminal
from keras_resnet.errors import LOST, USER_ERROR, UserError
from keras_resnet.interrupts import SIGNALS
from keras_resnet.training import hosts

LAST_WORDS = 2.0  # seconds that process 0 stays after an error of the user's
_CHILD = "KERAS_RESNET_SUPERVISED"  # descriptor of a pipe that ends with the command
# What JAX's runtime writes to stderr by itself, and the stack trace under it.
_RUNTIME = re.compile(
    rb"[IWEF]\d{4} |\*\*\* |    @ |Additional GRPC|:UNKNOWN:|RPC: |\s*$|\[Gloo\]|WARNING: All log"
)
LOST_TEXT = (
    "error: another process of this run did not come, has ended or cannot be reached, so this one ends "
    "too: give the same command on all hosts again, which resumes from the newest checkpoint"
)
NO_MEMORY_TEXT = (
    "error: the memory of a device of this host is used up, so all processes of this run end: give a smaller "
    "--batch-size, or use more devices"
)

INTERRUPTED: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminated",
}


def is_child() -> bool:
    """Whether this process is the one that trains."""
    return _CHILD in os.environ


def supervise() -> int:
    """Run this process's own command as a child, and return its exit code."""
    with tempfile.TemporaryDirectory() as temporary:  # it outlives the child, however that ends
        code = _run_child(temporary)
    if code >= 0:
        return code
    if code == -signal.SIGABRT:
        console.print_error(LOST_TEXT)
        return LOST
    reason = "; the system does so where memory runs out" if code == -signal.SIGKILL else ""
    ended = f"error: the training was ended by signal {-code}{reason}: the same command resumes it"
    console.print_error(INTERRUPTED.get(-code, ended))
    return 128 - code


def _run_child(temporary: str) -> int:
    """Its exit code; below 0 a signal's number."""
    # The child sees the end of this pipe when this process dies, however that happens.
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        env={**os.environ, _CHILD: str(reading), "TMPDIR": temporary},
        pass_fds=[reading],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C comes here alone, and is handed on
    )
    os.close(reading)
    for wanted in SIGNALS:
        if signal.getsignal(wanted) is not signal.SIG_IGN:
            signal.signal(wanted, lambda number, frame: child.send_signal(number))
    outputs = [(child.stdout, sys.stdout), (child.stderr, sys.stderr)]
    readers = [threading.Thread(target=_pass_on, args=pair) for pair in outputs]
    for reader in readers:
        reader.start()
    code = child.wait()
    for reader in readers:
        reader.join()
    os.close(writing)
    return code


def _pass_on(source: Any, target: TextIO) -> None:
    """Hand on all lines but those of JAX's runtime."""
    for line in source:
        if not _RUNTIME.match(line):
            with contextlib.suppress(OSError, ValueError):  # its reader has gone, as for `| head`
                target.buffer.write(line)
                target.flush()


def end_with_parent() -> None:
    """In the child: end when the command that watches over it has."""
    descriptor = int(os.environ[_CHILD])

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(LOST)

    threading.Thread(target=wait, daemon=True).start()


def leave(error: BaseException) -> NoReturn:
    """In the child: end at once. A normal end would wait for the others, who may wait for this one."""
    if isinstance(error, UserError):
        console.print_error(terminal.error_line(error))
        if (here := hosts.place()) and here.process == 0:
            # JAX's runtime ends the others as soon as this one is gone: first they may say the same.
            time.sleep(LAST_WORDS)
        os._exit(error.exit_code)
    if (signum := terminal.signal_of(error)) is not None:
        console.print_error(INTERRUPTED[signum])
        os._exit(128 + signum)
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    of_jax = [str(cause) for cause in causes if type(cause).__name__ == "JaxRuntimeError"]
    if not of_jax:
        traceback.print_exception(error)
        os._exit(1)
    if of_jax[-1].startswith("RESOURCE_EXHAUSTED"):
        reason, _, _ = of_jax[-1].partition("\n")
        console.print_error(f"{NO_MEMORY_TEXT} ({reason})")
        os._exit(USER_ERROR)
    console.print_error(LOST_TEXT)
    os._exit(LOST)
