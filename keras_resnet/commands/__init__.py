"""The subcommands of `keras-resnet`, one module each. Each has a function `main(argv)`.

A module here imports what is slow to import (Keras, TensorFlow) after its flags are parsed, so that a
wrong flag and --help are answered at once.
"""
