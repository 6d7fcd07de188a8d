"""What config.json and results.json say of a run."""

import math
import shlex
import sys
from pathlib import Path
from typing import Any

import keras

from keras_resnet.data.dataset import Dataset
from keras_resnet.nets.describe import count_parameters
from keras_resnet.nets.family import MODELS
from keras_resnet.runs import provenance
from keras_resnet.runs.folder import RunConfig, RunResults
from keras_resnet.runs.run import Run
from keras_resnet.training import devices
from keras_resnet.training.progress import Progress


def config_of(run: Run, data: Dataset, precision: str) -> RunConfig:
    """config.json of a run that begins."""
    script = Path(sys.argv[0]).name
    installed = script in ("keras-resnet", "__main__.py")
    program = ["keras-resnet"] if installed else ["python", sys.argv[0]]
    config: RunConfig = {
        "settings": run.settings(),
        "precision": precision,
        "class_names": list(data.class_names),
        "command": shlex.join([*program, *sys.argv[1:]]),  # as it can be given again
        **_made_with(),  # type: ignore[typeddict-item]
    }
    if data.content_hash:
        config["content_hash"] = data.content_hash
    onednn = devices.onednn()
    return config if onednn is None else {**config, "onednn": onednn}


def results_of(
    progress: Progress, net: keras.Model, precision: str, test_loss: float, test_error: float
) -> RunResults:
    """results.json of a run that is finished."""
    run, config, kept = progress.run, progress.run.config, progress.kept
    images = progress.timed * run.recipe.batch_size
    results: RunResults = {
        "test_error": round(test_error, 4),
        "test_loss": test_loss if math.isfinite(test_loss) else None,
        "val_error": kept["val_error"],
        "train_error": kept["train_error"] or 0.0,
        "steps": progress.step,
        "recipe": run.recipe.name,
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(images / progress.seconds, 1) if progress.seconds else None,
        "parameters": count_parameters(net),
        "model": config.model,
        "shortcut": config.shortcut if config.model == "resnet" else None,
        "dataset": config.dataset,
        "seed": config.seed,
        "precision": precision,
        "peak_memory_mib": provenance.peak_memory_mib(),
        **_made_with(),  # type: ignore[typeddict-item]
    }
    if config.model in MODELS:
        results["depth"] = config.depth
    if kept["step"] != progress.step:
        results["saved_step"] = kept["step"]
    if progress.stopped_early:
        results["stopped_early"] = True
    return results


def _made_with() -> dict[str, Any]:
    backend = keras.backend.backend()
    return {
        "backend": backend,
        "device": devices.facts(),
        "versions": provenance.versions(backend),
        "git_commit": provenance.git_commit(),
    }
