"""Mean and spread over the seeds of an experiment."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.folder import RunConfig, RunFolder
from keras_resnet.runs.resume import decisive


def summarize(experiment: Path, config: RunConfig) -> None:
    """Write and print mean and sample std over the finished seeds that trained like `config`."""
    summary = write_summary(experiment, config)
    if summary is not None and summary["runs"] > 1:
        console.print_line(
            f"test error {summary['test_error_mean']:.2f} +- {summary['test_error_std']:.2f} % "
            f"(mean and sample std of {summary['runs']} runs, seeds {summary['seeds']})"
        )


def write_summary(experiment: Path, config: RunConfig) -> dict[str, Any] | None:
    """Write summary.json over the finished seeds that trained like `config`; None where there are none."""
    finished = {}
    for path in experiment.glob("seed-*/results.json"):
        seed, folder = path.parent.name.removeprefix("seed-"), RunFolder(path.parent)
        try:
            other, results = folder.read_config(), folder.read_results()
        except UserError:
            continue  # another seed's damaged file is told where that seed is asked for
        if seed.isdigit() and other and results and decisive(other) == decisive(config):
            finished[int(seed)] = results["test_error"]
    errors = [finished[seed] for seed in sorted(finished)]
    if not errors:
        return None
    summary = {
        "test_error_mean": round(statistics.mean(errors), 4),
        "test_error_std": round(statistics.stdev(errors), 4) if len(errors) > 1 else None,
        "runs": len(errors),
        "seeds": sorted(finished),
        "test_errors": errors,
    }
    files.write_json(experiment / "summary.json", summary)
    return summary
