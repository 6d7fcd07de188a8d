"""Import TensorFlow with its fast CPU kernels and without its start-up notes.

TensorFlow brings oneDNN's convolutions in every x86 wheel, but uses them unasked only on a CPU with
AVX512_VNNI, AVX_VNNI, AVX512_BF16 or AMX. With AVX2 alone they train ResNet-20 three times as fast as
the kernels that it takes there (README, Speed), so they are asked for, for this process and its
children. TF_ENABLE_ONEDNN_OPTS=0 in the environment has the last word; where TensorFlow was imported
before this package, it is too late and its own choice stays; for Keras's other backends nothing is set.

The notes would bury our one-line errors: TensorFlow 2.21 writes about oneDNN and missing GPUs to stderr
before its log level counts. Only lines of that form are dropped; everything else is passed on. Set
TF_CPP_MIN_LOG_LEVEL to see all of them.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile

_NOTES = re.compile(rb"[IWE]0000 .*(oneDNN|cuda|cuInit)|WARNING: All log messages before absl")


def import_tensorflow() -> None:
    """Import TensorFlow, where it is not imported yet and Keras is to use it."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if "tensorflow" in sys.modules or backend != "tensorflow":
        return
    if platform.machine().lower() in ("x86_64", "amd64"):  # elsewhere it is another library
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import tensorflow  # noqa: F401

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # for what it writes later
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow  # noqa: F401
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            notes.seek(0)
            rest = [line for line in notes if not _NOTES.match(line)]
            os.write(2, b"".join(rest))


import_tensorflow()
