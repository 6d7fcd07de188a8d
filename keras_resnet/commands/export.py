"""Export a trained net as SavedModel, ONNX, other formats or a page; verify it.

    python export.py experiments/resnet20/seed-0             SavedModel, ONNX
    python export.py experiments/resnet20/seed-0 --quantize  and int8
    python export.py experiments/resnet20/seed-0 --formats web --serve  a page

int8 is calibrated on training images. --serve shows the page on this machine.

Exit code 4: a file did not compute what Keras computes; nothing was written.
"""

import contextlib
import dataclasses
from collections.abc import Sequence

from keras_resnet import console
from keras_resnet.commands import flags, startup
from keras_resnet.errors import UserError
from keras_resnet.export.options import Options
from keras_resnet.export.web_server import Server
from keras_resnet.inference import zoo

PORT = 8000


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog=flags.program("export"), description=__doc__)
    add = parser.add_argument
    text = "a run folder, a .keras file, or a name that `keras-resnet models` lists"
    add("path", metavar="PATH", help=f"{text}; a file or folder of that name here comes first")
    text = "default: <run>/export, <stem>-export beside a file, <name>-export here for a name"
    add("--output", metavar="DIR", help=text)
    for field in dataclasses.fields(Options):
        add(f"--{field.name.replace('_', '-')}", default=field.default, **field.metadata)
    text = "the net's data set (default: the run's, else the one whose mean and std the net has)"
    add("--dataset", metavar="NAME|PATH", help=text)
    text = "of tensorflow_datasets (default: the run's, $TFDS_DATA_DIR or ~/tensorflow_datasets)"
    add("--data-dir", metavar="DIR", help=text)
    text = f"then serve the page on 127.0.0.1 until Ctrl-C (port {PORT} if none is given)"
    add("--serve", nargs="?", type=int, const=PORT, metavar="PORT", help=text)
    arguments = parser.parse_args(argv)
    options = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Options)}
    Options(**options)  # a wrong option or name ends here, before Keras is imported
    zoo.resolve(arguments.path)
    if arguments.serve is not None and "web" not in arguments.formats:
        raise UserError("`serve` shows the page: add web to `formats`")
    serves = arguments.serve is not None
    with Server(arguments.serve) if serves else contextlib.nullcontext() as server:
        startup.start_keras(needs="tensorflow")
        from keras_resnet.export import web_page
        from keras_resnet.export.pipeline import export, output_folder

        export(arguments.path, arguments.output, arguments.dataset, arguments.data_dir, **options)
        if server is not None:
            folder = output_folder(arguments.path, arguments.output) / web_page.FOLDER
            console.print_line(f"serving {folder} at {server.url} until Ctrl-C")
            with contextlib.suppress(KeyboardInterrupt):
                server.serve(folder)
    return 0
