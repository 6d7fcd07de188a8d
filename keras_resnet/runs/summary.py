"""summary.json of an experiment: mean and spread over its seeds."""

from __future__ import annotations

import statistics
from typing import Any

from keras_resnet import console
from keras_resnet.errors import UserError
from keras_resnet.runs import files
from keras_resnet.runs.resume import decisive
from keras_resnet.runs.run import Run, read_run


def write_summary(run: Run) -> dict[str, Any] | None:
    """Write summary.json over the finished seeds that trained like this one; None without any."""
    experiment, config = run.folder.path.parent, run.folder.read_config()
    errors: dict[int, float] = {}
    for path in experiment.glob("seed-*/results.json"):
        try:
            other = read_run(path.parent)
            began, results = other.folder.read_config(), other.folder.read_results()
        except UserError:
            continue  # it is reported where that seed is asked for
        if config and began and results and decisive(began) == decisive(config):
            errors[other.config.seed] = results["test_error"]
    if not errors:
        return None
    ordered = [errors[seed] for seed in sorted(errors)]
    summary = {
        "test_error_mean": round(statistics.mean(ordered), 4),
        "test_error_std": round(statistics.stdev(ordered), 4) if len(ordered) > 1 else None,
        "runs": len(ordered),
        "seeds": sorted(errors),
        "test_errors": ordered,
    }
    files.write_json(experiment / "summary.json", summary)
    return summary


def print_summary(summary: dict[str, Any]) -> None:
    """Print mean and sample standard deviation of several seeds."""
    if summary["runs"] > 1:
        console.print_line(
            f"test error {summary['test_error_mean']:.2f} +- {summary['test_error_std']:.2f} % "
            f"(mean and sample std of {summary['runs']} runs, seeds {summary['seeds']})"
        )
