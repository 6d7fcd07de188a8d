"""The results that the repository shows are those of the run folders that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_resnet.commands import report

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra [report]")
REPOSITORY = Path(__file__).resolve().parents[2]
STORED = REPOSITORY / "results/report"


def test_the_stored_report_is_made_of_the_stored_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert report.main(["results", "--output", str(tmp_path)]) == 0
    for name in ("results.md", "results.json"):
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes()
    if f"Matplotlib v{matplotlib.__version__}," not in (STORED / "figure6.svg").read_text():
        pytest.skip("the stored figure was drawn by another version of matplotlib")
    for name in ("figure6.svg", "figure6.png"):
        assert (tmp_path / name).read_bytes() == (STORED / name).read_bytes()
