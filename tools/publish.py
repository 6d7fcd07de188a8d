"""Put a trained net into the package, or a run's small files into results/: for this package's maintainers.

    python -m tools.publish experiments/resnet56-fast/seed-*
    python -m tools.publish experiments/resnet56-fast/seed-0 --results results/resnet56-fast/seed-0

Of several runs of a net, the one with the lowest validation error is taken, and before all of these the
longest that trained on all images (`--val-size 0`), which has no such error. The others need no model.keras.
It is stored as the run folder that made it (config.json, results.json, model.keras), with a card, and gets an
entry in registry.json. Its kernels are stored in float16, unless that changes the class of more than 10 of
CIFAR-10's test images. Nothing is typed by hand, and no file of another run is replaced.
"""

import dataclasses
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.commands import flags, startup, terminal
from keras_resnet.data import datasets
from keras_resnet.data.constants import CLASS_NAMES
from keras_resnet.errors import UserError
from keras_resnet.inference import zoo
from keras_resnet.inference.zoo import Candidate, Entry
from keras_resnet.nets.family import PAPER_ERRORS
from keras_resnet.recipes import RECIPES
from keras_resnet.runs import files
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults
from keras_resnet.runs.provenance import without_folders
from keras_resnet.runs.resume import CHANGEABLE, INTERVALS
from keras_resnet.runs.run import Run, read_run, runs_of

MOST_CHANGED = 10  # test images whose class float16 may change
_H5 = "model.weights.h5"  # in a .keras file
# The nets of the paper's Fig. 6 and table 6 that a wheel has room for.
NETS = {"resnet": (20, 32, 44, 56, 110), "plain": (20, 56)}
_EXPECTED = (
    "a net must come from a finished run of "
    + " or ".join(f"{model} {', '.join(map(str, depths))}" for model, depths in NETS.items())
    + " on cifar10 with a recipe's defaults, from a clean commit; the number of updates may be another, and "
    "with `val_size` 0 the crop padding too"
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = flags.ArgumentParser(prog="python -m tools.publish", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder of the net")
    parser.add_argument(
        "--output", type=Path, default=zoo.WEIGHTS, metavar="DIR", help="folder of the registry"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="only store the small files of one run there"
    )
    arguments = parser.parse_args(argv)
    # Beside the run folders seed-* lie a sweep's logs and runs that were moved aside.
    folders = [p for p in arguments.runs if p.is_dir() and not files.MOVED_ASIDE.search(p.name)]
    runs = folders or arguments.runs
    if arguments.results and len(runs) > 1:
        raise UserError(f"--results stores one run. Received: {len(runs)}")
    if arguments.results:
        store_results(runs[0], arguments.results)
        console.print_line(f"wrote {arguments.results}")
        return 0
    startup.start_keras()
    entry = pack(runs, arguments.output)
    file = arguments.output / entry.file
    console.print_line(
        f"wrote {file.parent}: {entry.name}, recipe {entry.recipe}, seed {entry.seed}, chosen from "
        f"{len(entry.candidates)}; model.keras {file.stat().st_size / 2**20:.2f} MiB, its card and its entry"
    )
    return 0


def pack(folders: Sequence[Path], weights: Path) -> Entry:
    """Store the net of the best run (see `_rank`), with its card and its entry, in `weights`.

    Raises UserError where a run is of another kind, or the folder of the net holds another run.
    """
    from keras_resnet.inference.open import load_keras
    from keras_resnet.nets.describe import describe

    runs = sorted(map(_checked, folders), key=lambda pair: _rank(pair[1]))
    (best, candidate), candidates = runs[0], tuple(candidate for _, candidate in runs)
    config, results = _finished(best.folder.path)
    nets = sorted({f"{run.config.model}{run.config.depth}" for run, _ in runs})
    if len(nets) > 1:
        raise UserError(f"all runs must be of one net. Received: {', '.join(nets)}")
    described = describe(load_keras(best.folder.path))
    for key in ("model", "depth"):
        if described[key] != getattr(best.config, key):
            raise UserError(f"{_EXPECTED}. Received: a net of {key} {described[key]}")
    target = weights / f"{nets[0]}-cifar10"
    _write_small_files(target, config, results)
    source = best.folder.model_path
    published = {net.sha256: net.changed_classes for net in zoo.entries()}
    if (sha256 := _sha256(source)) in published:  # its float32 weights are gone
        files.write_atomic(target / source.name, source.read_bytes())
        changed = published[sha256]
    else:
        changed = _compress(source, target / source.name)
    entry = Entry(
        name=nets[0],
        model=best.config.model,  # type: ignore[arg-type]
        depth=best.config.depth,
        dataset="cifar10",
        file=f"{target.name}/model.keras",
        sha256=_sha256(target / source.name),
        commit=str(results["git_commit"]),
        test_error=results["test_error"],
        changed_classes=changed,
        parameters=results["parameters"],
        candidates=candidates,
        **dataclasses.asdict(candidate),
    )
    (target / "MODEL_CARD.md").write_text(card(entry, config, results))
    others = zoo.entries(weights) if (weights / zoo.FILE).exists() else ()
    entries = [*(net for net in others if net.name != entry.name), entry]
    entries.sort(key=lambda net: (net.model != "resnet", net.depth))
    files.write_json(weights / zoo.FILE, {"nets": [dataclasses.asdict(net) for net in entries]})
    return entry


def _rank(run: Candidate) -> tuple:
    """Runs on all images first, the longest before the others; then by validation error."""
    order = (0, -run.steps) if run.val_error is None else (1, run.val_error)
    return *order, run.recipe, run.seed  # equal runs in one order, whatever their folders


def store_results(path: Path, target: Path) -> None:
    """Copy config.json, metrics.csv and results.json of a finished run, without its machine's folders."""
    _write_small_files(target, *_finished(path))
    RunFolder(target).write_metrics(RunFolder(path).read_metrics())


def _checked(path: Path) -> tuple[Run, Candidate]:
    """A run that may be published, and what the registry says of it."""
    config, results = _finished(path)
    run = read_run(path)
    named = {key: getattr(run.config, key) for key in ("model", "depth", "recipe", "seed")}
    if run.config.val_size == 0:
        named |= {"val_size": 0, "crop_padding": run.recipe.crop_padding}
    (usual,) = runs_of(TrainConfig(**named, steps=run.recipe.steps))
    expected = {**usual.settings(), "class_names": list(CLASS_NAMES["cifar10"])}
    received: dict[str, Any] = {**run.settings(), "class_names": config.get("class_names")}
    different = [
        f"{key} {received.get(key)!r}"
        for key in expected
        if key not in (*CHANGEABLE, *INTERVALS, "seed") and received.get(key) != expected[key]
    ]
    if run.config.depth not in NETS[run.config.model]:
        different.append(f"{run.config.model} of depth {run.config.depth}")
    different += [
        f"{key} {results.get(key)!r} in results.json"
        for key in ("model", "depth", "steps", "seed")
        if results.get(key) != expected[key]
    ]
    measured = ("parameters",) if run.config.val_size == 0 else ("parameters", "val_error")
    different += [f"{key} None" for key in measured if results.get(key) is None]
    commits = {"config": config.get("git_commit"), "results": results.get("git_commit")}
    different += [
        f"git_commit {commit!r} in {name}.json"
        for name, commit in commits.items()
        if not re.fullmatch("[0-9a-f]{40}", str(commit))
    ]
    if different:
        raise UserError(f"{_EXPECTED}. Received: {path} with {', '.join(different)}")
    return run, Candidate(
        run.recipe.name, run.recipe.steps, run.config.seed, results.get("val_error")
    )


def _finished(path: Path) -> tuple[RunConfig, RunResults]:
    config, results = RunFolder(path).read_config(), RunFolder(path).read_results()
    if config is None or results is None:
        raise UserError(f"{path} must hold config.json and results.json: name a finished run")
    return config, results


def _write_small_files(target: Path, config: RunConfig, results: RunResults) -> None:
    """Write config.json and results.json to a folder that is new or holds the same run."""
    stored = RunFolder(target).read_results()
    if stored != results and target.is_dir() and any(target.iterdir()):
        raise UserError(f"{target} must not hold another run: delete it first, or name another")
    target.mkdir(parents=True, exist_ok=True)
    RunFolder(target).write_config(without_folders(config))
    RunFolder(target).write_results(results)


def _compress(source: Path, target: Path) -> int | None:
    """Write a net with kernels in float16 and deflated, a half as large.

    Returns the number of test images whose class that changes. Where it is more than `MOST_CHANGED`, the file
    is float32, and the number None.
    """
    from keras_resnet.inference.open import load_keras

    images = datasets.load("cifar10").test_images
    with zipfile.ZipFile(source) as stored:
        members = {name: stored.read(name) for name in stored.namelist()}
    _write(target, {**members, _H5: _in_float16(members[_H5])})
    classes = [
        load_keras(file).predict(images, batch_size=500, verbose=0).argmax(axis=1)
        for file in (source, target)
    ]
    if (changed := int((classes[0] != classes[1]).sum())) <= MOST_CHANGED:
        return changed
    _write(target, members)
    return None


def _write(target: Path, members: Mapping[str, bytes]) -> None:
    with files.atomic(target) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for name, data in members.items():
            # A ZipInfo of its own has no time, so that the same run gives the same bytes.
            packed.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, compresslevel=9)


def _in_float16(weights: bytes) -> bytes:
    """The weights of a `.keras` file with float16 kernels, which Keras reads into float32 variables."""
    import h5py

    def copy(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            made = new.require_group(name)
        else:
            values = item[()]
            made = new.create_dataset(name, data=values.astype("f2") if values.ndim > 1 else values)
        made.attrs.update(item.attrs)

    written = io.BytesIO()
    with h5py.File(io.BytesIO(weights)) as old, h5py.File(written, "w") as new:
        old.visititems(copy)
    return written.getvalue()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def card(entry: Entry, config: RunConfig, results: RunResults) -> str:
    """The text of MODEL_CARD.md, from a net's entry and its run's config.json and results.json."""
    from keras_resnet.export.card import front_matter, training

    title = f"{entry.name}-{entry.dataset}"
    facts = {
        "name": title,
        "dataset": entry.dataset,
        "files": {},
        "test_error": {"keras": entry.test_error},
        # Without the folders of the machine that made it.
        "training": {"config": {**config, "command": command(entry, config)}, "results": results},
    }
    kind = f"ResNet-{entry.depth}" if entry.model == "resnet" else f"Plain-{entry.depth}"
    shortcut = "shortcut `zeropad`" if entry.model == "resnet" else "without shortcuts"
    usual = RECIPES[entry.recipe].steps
    updates = "" if entry.steps == usual else f" with {entry.steps:,} updates instead of {usual:,}"
    paper = PAPER_ERRORS.get(entry.depth) if entry.model == "resnet" else None
    theirs = f" He et al. give\n{paper} % after 64,000 updates." if paper else ""
    stored = "The file holds float32 weights."
    if entry.changed_classes is not None:
        stored = (
            "The file holds its kernels in float16, which changes the class of "
            f"{entry.changed_classes} of the 10,000 images."
        )
    return f"""{front_matter(facts)}
# {title}

The {kind} of He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385,
section 4.2): {entry.parameters:,} parameters, {shortcut}, trained on CIFAR-10 with
recipe `{entry.recipe}`{updates} by this package's `train.py`, commit {entry.commit}.

- Input: uint8 or float32 `[N, 32, 32, 3]`, RGB, 0..255. Normalization is inside.
- Output: probabilities, float32 `[N, {len(config["class_names"])}]`.
- Classes: {", ".join(config["class_names"])}.

It knows ten kinds of small images and gives each image one of them, whatever it shows. The images
are of CIFAR-10's kind: one object, seen whole, that fills the frame.

## Use

```python
import keras_resnet

net = keras_resnet.{entry.model}(depth={entry.depth}, weights="{entry.dataset}")
probabilities = net.predict(images)  # uint8 [N, 32, 32, 3]
```

    keras-resnet predict --model {entry.name} photo.jpg
    keras-resnet evaluate --model {entry.name}
    keras-resnet export {entry.name}

## Error

**{entry.test_error:.2f} %** of CIFAR-10's 10,000 test images, measured once, at the end of training;
nothing was chosen by it. The last weights of the run, not its best.{theirs}
{stored}

{_choice(entry)}

{training(facts)}"""


def _choice(entry: Entry) -> str:
    """Why this run is the one that is published."""
    if entry.val_error is None:
        reason = (
            "It was trained on all 50,000 training images, with none left for validation. Such a run, and\n"
            "of several the longest, is published before all others: no error chose it."
        )
    elif len(entry.candidates) == 1:
        return f"It is the only run (seed {entry.seed}); its validation error is {entry.val_error:.2f} %."
    else:
        count = len(entry.candidates)
        reason = f"""Of {count} runs, the one with the lowest validation error was taken. `train.py` measures
the test error at the end of every run; it chose nothing. Each seed splits off other 5,000 images to
validate, and the standard error of such a number is about 0.4: the order of close runs is chance."""
    lines = ["| recipe | updates | seed | validation error, % |", "|---|---|---|---|"]
    for run in entry.candidates:
        error = "-" if run.val_error is None else f"{run.val_error:.2f}"
        lines.append(f"| `{run.recipe}` | {run.steps:,} | {run.seed} | {error} |")
    return "\n".join([reason, "", *lines])


def command(entry: Entry, config: RunConfig) -> str:
    """The command that trains the same net."""
    padding = config["settings"].get("crop_padding", RECIPES[entry.recipe].crop_padding)
    words = {
        "python train.py": True,
        "--model plain": entry.model == "plain",
        f"--recipe {entry.recipe}": entry.recipe != TrainConfig.recipe,
        f"--depth {entry.depth}": True,
        f"--steps {entry.steps}": entry.steps != RECIPES[entry.recipe].steps,
        f"--crop-padding {padding}": padding != RECIPES[entry.recipe].crop_padding,
        "--val-size 0": entry.val_error is None,
        f"--seed {entry.seed}": entry.seed != TrainConfig.seed,
    }
    return " ".join(word for word, given in words.items() if given)


if __name__ == "__main__":
    sys.exit(terminal.run(main))
