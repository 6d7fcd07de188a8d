"""The trained ResNet-20 that comes with the package.

    net = keras_resnet.resnet(depth=20, weights="cifar10")      # in Python
    keras-resnet predict cat.png                      # and without --model

It lies in `weights/resnet20-cifar10/` as the run folder that made it (config.json, results.json,
model.keras), so that everything that opens a run folder opens it, with a card.

    python -m keras_resnet.commands.publish experiments/resnet20/seed-0

puts a finished run of yours in its place (for those who publish this package).
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.export.card import front_matter, training
from keras_resnet.inference.keras_file import load_keras
from keras_resnet.recipes import PAPER
from keras_resnet.runs import staged
from keras_resnet.runs.files import make_folder
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults
from keras_resnet.runs.publishing import without_folders
from keras_resnet.runs.resume import BEFORE, INTERVALS, PLACES
from keras_resnet.training.config import TrainConfig
from keras_resnet.zoo.models import kind_of
from keras_resnet.zoo.registry import FOLDER, SHIPPED

_FILES = frozenset({"model.keras", "config.json", "results.json", "MODEL_CARD.md"})


def pack(run: Path, folder: Path = FOLDER) -> None:
    """Store a finished run's net compactly, with config.json, results.json and MODEL_CARD.md.

    Args:
        run: run folder of a ResNet-20 on CIFAR-10, from a clean commit; of the recipe's settings only
            the number of updates may differ from the default.
        folder: where to; what was there is replaced in one step.

    Raises:
        UserError: where `run` is another one, or files cannot be read or written.
    """

    net = load_keras(run)
    config, results = RunFolder(run).read_config(), RunFolder(run).read_results()
    if config is None or results is None:
        raise UserError(f"{run} must hold config.json and results.json: name a finished run")
    described = kind_of(net)
    free = {*PLACES, *INTERVALS, "steps", "warmup_steps"}
    expected = {
        key: value for key, value in TrainConfig().settings().items() if key not in free
    } | SHIPPED
    found = {**BEFORE, **config["settings"], **described}
    different = [f"{key} {found.get(key)!r}" for key in expected if found.get(key) != expected[key]]
    if not re.fullmatch("[0-9a-f]{40}", str(results.get("git_commit"))):
        different.append(f"git_commit {results.get('git_commit')!r}")
    try:
        text = card(config, results)
    except (KeyError, TypeError, ValueError) as error:
        different.append(f"a file without {error}")
    if different:
        raise UserError(
            "expected the run folder of a ResNet-20 on CIFAR-10 with the recipe's defaults, from a "
            f"clean commit. Received: {run} with {', '.join(different)}"
        )
    with staged.staged(folder, _FILES, marker="results.json") as staging:
        with (
            zipfile.ZipFile(run / "model.keras") as stored,
            zipfile.ZipFile(staging / "model.keras", "w") as packed,
        ):
            for name in stored.namelist():
                # Keras stores without compressing; deflated, the file is a quarter smaller. A
                # ZipInfo of its own has no time, so that the same run gives the same bytes.
                member = zipfile.ZipInfo(name)
                packed.writestr(member, stored.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)
        RunFolder(staging).write_config(without_folders(config))
        RunFolder(staging).write_results(results)
        (staging / "MODEL_CARD.md").write_text(text)


def store_results(run: Path, target: Path) -> None:
    """Copy config.json, metrics.csv and results.json of a finished run, without its machine's folders.

    Args:
        run: the run folder.
        target: the folder to write, e.g. `results/resnet20-fast/seed-0`.

    Raises:
        UserError: where the run is not finished, or files cannot be read or written.
    """
    source, copy = RunFolder(run), RunFolder(target)
    config, results = source.read_config(), source.read_results()
    if config is None or results is None:
        raise UserError(f"{run} must hold config.json and results.json: name a finished run")
    make_folder(target)
    copy.write_config(without_folders(config))
    copy.write_metrics(source.read_metrics())
    copy.write_results(results)


def card(config: RunConfig, results: RunResults) -> str:
    """The text of the shipped net's MODEL_CARD.md, from its run's config.json and results.json."""

    steps = results["steps"]
    full = steps == PAPER.steps
    command = "python train.py --depth 20" + ("" if full else f" --steps {steps}")
    facts = {
        "name": FOLDER.name,
        "dataset": "cifar10",
        "files": {},
        "test_error": {"keras": results["test_error"]},
        # Without the folders of the machine that made it.
        "training": {"config": {**config, "command": command}, "results": results},
    }
    recipe = "the paper's whole recipe" if full else f"its schedule cut to {steps:,} updates"
    return f"""{front_matter(facts)}
# {FOLDER.name}

The ResNet-20 of He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385,
section 4.2): {results["parameters"]:,} parameters, shortcut `zeropad`, trained on CIFAR-10 with
{recipe} by this package's `train.py`, commit {results["git_commit"]}.

- Input: uint8 or float32 `[N, 32, 32, 3]`, RGB, 0..255. Normalization is inside.
- Output: probabilities, float32 `[N, 10]`.
- Classes: {", ".join(config["class_names"])}.

It knows ten kinds of small images and gives each image one of them, whatever it shows. The images
are of CIFAR-10's kind: one object, seen whole, that fills the frame.

## Use

```python
import keras_resnet

net = keras_resnet.resnet(depth=20, weights="cifar10")
probabilities = net.predict(images)  # uint8 [N, 32, 32, 3]
```

    keras-resnet predict photo.jpg
    keras-resnet evaluate
    python export.py keras_resnet/zoo/weights/{FOLDER.name} --output exported    # in a checkout

## Error

**{results["test_error"]:.2f} %** of CIFAR-10's 10,000 test images, measured once, at the end of training;
nothing was chosen by it. One run (seed {results["seed"]}), the last weights, not the best. He et al. give
8.75 % after 64,000 updates.

{training(facts)}"""
