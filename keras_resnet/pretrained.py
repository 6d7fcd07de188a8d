"""The trained ResNet-20 that comes with the package.

    net = keras_resnet.resnet(depth=20, weights="cifar10")      # in Python
    python -m keras_resnet.predict cat.png                      # and without --model

It lies in `weights/resnet20-cifar10/` as the run folder that made it (config.json, results.json,
model.keras), so that everything that opens a run folder opens it, with a card.

    python -m keras_resnet.pretrained experiments/resnet20/seed-0

puts a finished run of yours in its place (for those who publish this package).
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import cli
from keras_resnet.cli import UserError
from keras_resnet.config import TrainConfig
from keras_resnet.recipes import PAPER

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).resolve().parent / "weights" / "resnet20-cifar10"
NAMES = ("cifar10",)
# What the shipped net is; `loading.describe` says the same of any net.
_SHIPPED = {"model": "resnet", "depth": 20, "shortcut": "zeropad", "num_classes": 10}
_FILES = frozenset({"model.keras", "config.json", "results.json", "MODEL_CARD.md"})


def _kind(net: keras.Model) -> dict[str, Any]:
    """What a net is, in the terms of `_SHIPPED`."""
    from keras_resnet import loading

    described = loading.describe(net)
    return {key: described[key] for key in _SHIPPED}


def assign(net: keras.Model, weights: str) -> None:
    """Give a net of `resnet()` the shipped weights.

    Args:
        net: `resnet(depth=20)` with the normalization and classes of CIFAR-10, of any image size.
        weights: `"cifar10"`.

    Raises:
        ValueError: for another name, or a net that the weights do not fit.
        UserError: if the file of the weights is missing or damaged.
    """
    from keras_resnet import loading

    if weights not in NAMES:
        raise ValueError(f"weights must be None or {NAMES[0]!r}. Received: weights={weights!r}")
    is_net = _kind(net)
    if is_net != _SHIPPED or loading.recognize_dataset(net) != "cifar10":
        shortcut = f", shortcut={is_net['shortcut']!r}" if is_net["shortcut"] else ""
        raise ValueError(
            "weights='cifar10' are those of resnet(depth=20) with 10 classes, shortcut='zeropad' and "
            f"CIFAR-10's mean and std. Received: {is_net['model']}(depth={is_net['depth']}{shortcut}) "
            f"with {is_net['num_classes']} classes and the mean and std of "
            f"{loading.recognize_dataset(net) or 'no data set of ours'}; leave weights out"
        )
    net.set_weights(loading.load_keras(FOLDER).get_weights())


def pack(run: Path, folder: Path = FOLDER) -> None:
    """Store a finished run's net compactly, with config.json, results.json and MODEL_CARD.md.

    Args:
        run: run folder of a ResNet-20 on CIFAR-10, from a clean commit; of the recipe's settings only
            the number of updates may differ from the default.
        folder: where to; what was there is replaced in one step.

    Raises:
        UserError: where `run` is another one, or files cannot be read or written.
    """
    from keras_resnet import folders, loading, resuming, runs

    net = loading.load_keras(run)
    config, results = (runs.read_json(run / f"{name}.json") for name in ("config", "results"))
    if not isinstance(config, dict) or not isinstance(results, dict):
        raise UserError(f"{run} must hold config.json and results.json: name a finished run")
    described = _kind(net)
    free = {*resuming.PLACES, "steps", "eval_every", "checkpoint_every", "warmup_steps"}
    expected = {
        key: value for key, value in TrainConfig().settings().items() if key not in free
    } | _SHIPPED
    found = {**resuming.BEFORE, **(config.get("settings") or {}), **described}
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
    with folders.staged(folder, _FILES, marker="results.json") as staging:
        with (
            zipfile.ZipFile(run / "model.keras") as stored,
            zipfile.ZipFile(staging / "model.keras", "w") as packed,
        ):
            for name in stored.namelist():
                # Keras stores without compressing; deflated, the file is a quarter smaller. A
                # ZipInfo of its own has no time, so that the same run gives the same bytes.
                member = zipfile.ZipInfo(name)
                packed.writestr(member, stored.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)
        for name in ("config.json", "results.json"):
            (staging / name).write_bytes((run / name).read_bytes())
        (staging / "MODEL_CARD.md").write_text(text)


def card(config: dict[str, Any], results: dict[str, Any]) -> str:
    """The text of the shipped net's MODEL_CARD.md, from its run's config.json and results.json."""
    from keras_resnet import model_card

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
    return f"""{model_card.front_matter(facts)}
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

    python -m keras_resnet.predict photo.jpg
    python -m keras_resnet.evaluate
    python export.py keras_resnet/weights/{FOLDER.name} --output exported    # in a checkout

## Error

**{results["test_error"]:.2f} %** of CIFAR-10's 10,000 test images, measured once, at the end of training;
nothing was chosen by it. One run (seed {results["seed"]}), the last weights, not the best. He et al. give
8.75 % after 64,000 updates.

{model_card.training(facts)}"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(
        prog="python -m keras_resnet.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder to ship")
    parser.add_argument(
        "--output", type=Path, default=FOLDER, metavar="DIR", help="(default: in the package)"
    )
    arguments = parser.parse_args(argv)
    pack(arguments.run, arguments.output)
    size = (arguments.output / "model.keras").stat().st_size
    print(f"wrote {arguments.output}: model.keras {size / 2**20:.2f} MiB and its card")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
