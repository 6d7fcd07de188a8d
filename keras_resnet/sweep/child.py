"""Run `keras-resnet` for as long as stdin stays open: `python -m keras_resnet.sweep.child train ...`

A sweep's worker holds the other end of the pipe. When the worker dies, however it dies, the kernel closes
that end: the training saves a checkpoint, as on SIGTERM, and ends. A worker that wants the training to end
closes it too, so there is one way to end it.
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import threading

GRACE = 10.0  # seconds that a training has to save a checkpoint, before it ends in any case


def main() -> None:
    """Run `keras-resnet` with this process's arguments."""
    # Ray's processes block SIGINT, and what they start inherits that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    runpy.run_module("keras_resnet", run_name="__main__", alter_sys=True)


def _end_with_stdin() -> None:
    while os.read(0, 1):
        pass
    # Its timer needs no Python: it ends a process that is stuck in a kernel, too. It would write stacks.
    faulthandler.dump_traceback_later(GRACE, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
