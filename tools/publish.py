"""Put a finished run of yours into the zoo (for those who publish this package).

    python -m keras_resnet.commands.publish experiments/resnet56-fast/seed-*

takes the one with the lowest validation error. It is stored in `weights/<name>-<dataset>/` as the run
folder that made it (config.json, results.json, model.keras), so that everything that opens a run
folder opens it, with a card, and gets an entry in registry.json. Nothing is typed by hand.
"""

from __future__ import annotations

import dataclasses
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_resnet.inference.keras_file import load_keras
from keras_resnet.zoo import registry
from keras_resnet.zoo.models import kind_of
from keras_resnet.zoo.registry import WEIGHTS, Candidate, Entry

from keras_resnet.data.constants import CLASS_NAMES
from keras_resnet.errors import UserError
from keras_resnet.export.card import front_matter, training
from keras_resnet.nets.family import PAPER_ERRORS
from keras_resnet.recipes import RECIPES
from keras_resnet.runs import files, staged
from keras_resnet.runs.config import TrainConfig
from keras_resnet.runs.folder import RunConfig, RunFolder, RunResults
from keras_resnet.runs.publishing import without_folders
from keras_resnet.runs.resume import BEFORE, INTERVALS, PLACES

# The nets of the paper's Fig. 6 and table 6 that a wheel has room for.
NETS = {"resnet": (20, 32, 44, 56, 110), "plain": (20, 56)}
_FILES = frozenset({"model.keras", "config.json", "results.json", "MODEL_CARD.md"})
_EXPECTED = (
    "expected a finished run of "
    + " or ".join(f"{model} {', '.join(map(str, depths))}" for model, depths in NETS.items())
    + " on cifar10 with a recipe's defaults, but for the number of updates, from a clean commit"
)


class _Run(NamedTuple):
    """A run that may be published."""

    path: Path
    config: RunConfig
    results: RunResults
    candidate: Candidate


def pack(runs: Sequence[Path], weights: Path = WEIGHTS) -> Entry:
    """Store the net of the run with the lowest validation error compactly, with its card and its entry.

    Args:
        runs: finished runs of one net, each from a clean commit; of its recipe's settings only the
            number of updates may differ from the default. Only the best needs its model.keras.
        weights: the folder of the registry. What was there of the same name is replaced in one step.

    Returns:
        The entry in the registry.

    Raises:
        UserError: where a run is another one, or files cannot be read or written.
    """
    candidates = sorted(map(_read, runs), key=lambda run: run.candidate.val_error)
    best = candidates[0]
    nets = sorted({f"{run.results['model']}{run.results['depth']}" for run in candidates})
    if len(nets) > 1:
        raise UserError(f"expected runs of one net. Received: {', '.join(nets)}")
    if not files.exists(best.path / "model.keras"):
        raise UserError(
            f"{best.path}, the best by validation error, must hold model.keras, but does not"
        )
    net = load_keras(best.path)
    entry = _entry(nets[0], [run.candidate for run in candidates], best.results)
    if different := _differences(entry, kind_of(net)):
        raise UserError(f"{_EXPECTED}. Received: {best.path} with a net of {', '.join(different)}")
    folder = weights / Path(entry.file).parent
    with staged.staged(folder, _FILES) as staging:
        _compress(best.path / "model.keras", staging / "model.keras")
        data = (staging / "model.keras").read_bytes()
        entry = dataclasses.replace(entry, sha256=registry.sha256(data))
        RunFolder(staging).write_config(without_folders(best.config))
        RunFolder(staging).write_results(best.results)
        (staging / "MODEL_CARD.md").write_text(card(entry, best.config, best.results))
    known = registry.entries(weights) if files.exists(weights / registry.FILE) else []
    registry.write([net for net in known if net.name != entry.name] + [entry], weights)
    return entry


def _read(path: Path) -> _Run:
    """A run, if it is finished and fit to be published."""
    config, results = _finished(path)
    settings: dict[str, Any] = {**BEFORE, **config["settings"]}
    found: dict[str, Any] = {**settings, "class_names": config.get("class_names")}
    expected: dict[str, Any] = {"class_names": list(CLASS_NAMES["cifar10"])}
    named = {key: settings.get(key) for key in ("model", "depth", "recipe", "steps", "seed")}
    try:
        usual = TrainConfig(**named).settings()  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise UserError(f"{_EXPECTED}. Received: {path} with {error}") from None
    expected |= {key: usual[key] for key in usual if key not in {*PLACES, *INTERVALS}}
    different = [f"{key} {found.get(key)!r}" for key in expected if found.get(key) != expected[key]]
    if usual["depth"] not in NETS[usual["model"]]:
        different.append(f"{usual['model']} of depth {usual['depth']}")
    for key in ("model", "depth", "steps", "seed"):
        if results.get(key) != usual[key]:
            different.append(f"{key} {results.get(key)!r} in results.json")
    different += [f"{key} None" for key in ("val_error", "parameters") if results.get(key) is None]
    for file, commit in (
        ("config.json", config.get("git_commit")),
        ("results.json", results.get("git_commit")),
    ):
        if not re.fullmatch("[0-9a-f]{40}", str(commit)):
            different.append(f"git_commit {commit!r} in {file}")
    if different:
        raise UserError(f"{_EXPECTED}. Received: {path} with {', '.join(different)}")
    val_error = results["val_error"]
    assert val_error is not None
    seed, steps, recipe = usual["seed"], usual["steps"], usual["recipe"]
    return _Run(path, config, results, Candidate(recipe, steps, seed, val_error))


def _finished(path: Path) -> tuple[RunConfig, RunResults]:
    config, results = RunFolder(path).read_config(), RunFolder(path).read_results()
    if config is None or results is None:
        raise UserError(f"{path} must hold config.json and results.json: name a finished run")
    return config, results


def _entry(name: str, candidates: Sequence[Candidate], results: RunResults) -> Entry:
    """The entry of the first of the candidates, whose SHA-256 is not known yet."""
    best = candidates[0]
    return Entry(
        name=name,
        model=results["model"],  # type: ignore[arg-type]
        depth=results["depth"],
        dataset="cifar10",
        file=f"{name}-cifar10/model.keras",
        sha256="",
        recipe=best.recipe,
        steps=best.steps,
        seed=best.seed,
        commit=str(results["git_commit"]),
        val_error=best.val_error,
        test_error=results["test_error"],
        parameters=results["parameters"],
        candidates=tuple(candidates),
    )


def _differences(entry: Entry, found: dict[str, Any]) -> list[str]:
    return [f"{key} {found[key]!r}" for key in found if found[key] != getattr(entry, key)]


def _compress(source: Path, target: Path) -> None:
    """Keras stores without compressing; deflated, the file is a quarter smaller."""
    with zipfile.ZipFile(source) as stored, zipfile.ZipFile(target, "w") as packed:
        for name in stored.namelist():
            # A ZipInfo of its own has no time, so that the same run gives the same bytes.
            member = zipfile.ZipInfo(name)
            packed.writestr(member, stored.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)


def store_results(run: Path, target: Path) -> None:
    """Copy config.json, metrics.csv and results.json of a finished run, without its machine's folders.

    Args:
        run: the run folder.
        target: the folder to write, e.g. `results/resnet20-fast/seed-0`.

    Raises:
        UserError: where the run is not finished, or files cannot be read or written.
    """
    copy = RunFolder(target)
    config, results = _finished(run)
    files.make_folder(target)
    copy.write_config(without_folders(config))
    copy.write_metrics(RunFolder(run).read_metrics())
    copy.write_results(results)


def card(entry: Entry, config: RunConfig, results: RunResults) -> str:
    """The text of MODEL_CARD.md, from a net's entry and its run's config.json and results.json."""
    title = f"{entry.name}-{entry.dataset}"
    facts = {
        "name": title,
        "dataset": entry.dataset,
        "files": {},
        "test_error": {"keras": entry.test_error},
        # Without the folders of the machine that made it.
        "training": {"config": {**config, "command": command(entry)}, "results": results},
    }
    kind = f"ResNet-{entry.depth}" if entry.model == "resnet" else f"Plain-{entry.depth}"
    shortcut = f"shortcut `{entry.shortcut}`" if entry.shortcut else "without shortcuts"
    full = entry.steps == RECIPES[entry.recipe].steps
    updates = "" if full else f" cut to {entry.steps:,} updates"
    paper = PAPER_ERRORS.get(entry.depth) if entry.model == "resnet" else None
    theirs = f" He et al. give\n{paper} % after 64,000 updates." if paper else ""
    return f"""{front_matter(facts)}
# {title}

The {kind} of He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv:1512.03385,
section 4.2): {entry.parameters:,} parameters, {shortcut}, trained on CIFAR-10 with
recipe `{entry.recipe}`{updates} by this package's `train.py`, commit {entry.commit}.

- Input: uint8 or float32 `[N, 32, 32, 3]`, RGB, 0..255. Normalization is inside.
- Output: probabilities, float32 `[N, {entry.num_classes}]`.
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

{_choice(entry)}

{training(facts)}"""


def _choice(entry: Entry) -> str:
    """Why this run is the one that is published."""
    if len(entry.candidates) == 1:
        return f"It is the only run (seed {entry.seed}); its validation error is {entry.val_error:.2f} %."
    rows = [
        f"| `{run.recipe}` | {run.steps:,} | {run.seed} | {run.val_error:.2f} |"
        for run in entry.candidates
    ]
    table = "\n".join(
        ["| recipe | updates | seed | validation error, % |", "|---|---|---|---|", *rows]
    )
    count = len(entry.candidates)
    return f"""Of {count} runs, the one with the lowest validation error was taken. `train.py` measures the
test error at the end of every run; it chose nothing. Each seed splits off other 5,000 images to
validate, and the standard error of such a number is about 0.4: the order of close runs is chance.

{table}"""


def command(entry: Entry) -> str:
    """The command that trains the same net."""
    return " ".join(
        [
            "python train.py",
            *(["--model plain"] if entry.model == "plain" else []),
            *([f"--recipe {entry.recipe}"] if entry.recipe != TrainConfig.recipe else []),
            f"--depth {entry.depth}",
            *([f"--steps {entry.steps}"] if entry.steps != RECIPES[entry.recipe].steps else []),
            *([f"--seed {entry.seed}"] if entry.seed != TrainConfig.seed else []),
        ]
    )
