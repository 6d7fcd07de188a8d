"""The subcommands of `keras-resnet`, one module each. Each has a function `main(argv)`.

They import Keras and TensorFlow, which takes seconds, after the flags are parsed: a wrong flag and --help
are answered at once.
"""
