"""The results that the repository shows are those of the run folders that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from keras_resnet.commands import report

pytest.importorskip("matplotlib", reason="needs requirements-report.txt")

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "results"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        assert report.main(["results", "--output", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", ["results.md", "results.json"])
def test_the_table(made: Path, name: str) -> None:
    assert (made / name).read_bytes() == (RESULTS / "report" / name).read_bytes()


@pytest.mark.parametrize("name", ["figure6.svg", "figure6.png"])
def test_the_figure(made: Path, name: str) -> None:
    import matplotlib

    svg = (RESULTS / "report" / "figure6.svg").read_text()
    if f"Matplotlib v{matplotlib.__version__}," not in svg:
        pytest.skip("the stored figure was drawn by another version of matplotlib")
    assert (made / name).read_bytes() == (RESULTS / "report" / name).read_bytes()
