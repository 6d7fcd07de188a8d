"""The exported page in headless Chromium: the webcam, what goes wrong, what it loads, how it looks."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By

from keras_resnet.export import web_page
from keras_resnet.export.web_server import Server
from keras_resnet.inference.classifier import Classifier
from tests.export.browser import (
    EXAMPLES,
    check_answer,
    choose,
    complaints,
    probabilities,
    requests,
    seen,
    serving,
    text,
    wait,
)
from tests.helpers import bomb_png

pytestmark = pytest.mark.slow


# --- the webcam ---


def test_the_webcam(page: webdriver.Chrome) -> None:
    page.execute_script(
        "const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media);"
        "media.getUserMedia = async (wish) => (window.given = await ask(wish))"
    )
    button = page.find_element(By.ID, "camera")
    button.click()
    wait(page, lambda: text(page, "name") == "Webcam")
    assert button.text == "Stop the webcam"
    first = seen(page)
    wait(page, lambda: (seen(page) != first).any())  # Chromium's false webcam moves
    assert probabilities(page).sum() == pytest.approx(1, abs=1e-5)
    button.click()
    assert button.text == "Use the webcam"
    ended = "return window.given.getTracks().map((track) => track.readyState)"
    assert page.execute_script(ended) == ["ended"]
    button.click()
    wait(page, lambda: page.execute_script(ended) == ["live"])
    choose(page, EXAMPLES[3])
    assert page.execute_script(ended) == ["ended"] and button.text == "Use the webcam"
    page.execute_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') }"
    )
    button.click()
    wait(page, lambda: text(page, "problem") == "There is no webcam: choose a picture.")


@pytest.mark.parametrize(
    "step", ["navigator.mediaDevices.getUserMedia", "HTMLMediaElement.prototype.play"]
)
def test_a_file_chosen_while_the_webcam_starts(page: webdriver.Chrome, step: str) -> None:
    owner, _, name = step.rpartition(".")
    page.execute_script(
        f"const owner = {owner}, known = owner.{name};"
        f"owner.{name} = async function (...all) {{"
        "  const given = await known.apply(this, all);"
        "  await new Promise((go) => (window.go = go));"
        "  return given;"
        "}"
    )
    page.find_element(By.ID, "camera").click()
    wait(page, lambda: page.execute_script("return Boolean(window.go)"))
    choose(page, EXAMPLES[3])
    found = probabilities(page)
    page.execute_script("window.go()")
    time.sleep(0.5)  # a webcam that went on would have shown a frame
    assert text(page, "name") == EXAMPLES[3].name and text(page, "problem") == ""
    np.testing.assert_array_equal(probabilities(page), found)
    assert page.find_element(By.ID, "camera").text == "Use the webcam"


# --- what goes wrong ---


def test_bad_files_get_a_sentence(
    page: webdriver.Chrome, classifier: Classifier, tmp_path: Path
) -> None:
    ship = EXAMPLES[2].read_bytes()
    cases = {
        "poem.png": (b"I am a poem.\n", "is no picture that is read here: PNG, JPEG"),
        "empty.png": (b"", "is empty: 0 bytes"),
        "bomb.png": (bomb_png(20_000, 20_000), "has 20,000 × 20,000 pixels; at most 64,000,000"),
        "torn.png": (ship[:30], "could not be read: it is damaged"),
        "header.png": (ship[:100], "could not be read: it is damaged"),
        "head.jpg": (b"\xff\xd8\xff\xe0\x00", "is no picture"),
        "loop.jpg": (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 100, "is no picture"),
        "<b>.txt": (b"<b>bold</b>", "<b>.txt is no picture"),
    }
    for name, (content, sentence) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        start = time.monotonic()
        choose(page, path)
        said = text(page, "problem")
        assert said.startswith(name) and sentence in said, said
        assert time.monotonic() - start < 5
        assert probabilities(page).size == 0 and text(page, "answer") == "No picture yet"
        choose(page, EXAMPLES[2])  # the page lives on
        assert text(page, "problem") == ""
        check_answer(page, classifier.predict(EXAMPLES[2])[0])


def test_the_newest_picture_wins(page: webdriver.Chrome, classifier: Classifier) -> None:
    page.execute_script(
        "for (let k = 0; k < 40; k++) document.querySelectorAll('#examples button')[k % 4].click()"
    )
    wait(page, lambda: text(page, "name") == EXAMPLES[3].name)
    time.sleep(1)
    check_answer(page, classifier.predict(EXAMPLES[3])[0])
    assert text(page, "problem") == ""


# --- what is loaded, and from where ---


def test_no_request_leaves_this_machine(page: webdriver.Chrome, url: str, tmp_path: Path) -> None:
    choose(page, EXAMPLES[0])
    page.find_element(By.CSS_SELECTOR, "#examples button").click()
    wait(page, lambda: text(page, "name") == "airplane.png")
    asked = requests(page)
    assert [one for one in asked if not one.startswith((url, "data:", "blob:"))] == []
    paths = sorted(one.removeprefix(url) for one in asked)
    module = "onnxruntime/ort.wasm.bundle.min.js"
    assert {"", "model.onnx", module, f"onnxruntime/{web_page.WASM}"} <= {*paths}
    assert paths.count(module) == 1
    assert not complaints(page)


class _Elsewhere(http.server.SimpleHTTPRequestHandler):
    """Stands for the CDN: another origin, whose files any page may read."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("changed", ["", web_page.MODULE, web_page.WASM])
def test_a_changed_runtime_is_not_run(
    browser: webdriver.Chrome, folder: Path, classifier: Classifier, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, changed: str,
) -> None:  # fmt: skip
    """The page as it is without `runtime`, and a CDN whose files are those of npm, or are not."""
    path = web_page.CDN.removeprefix("https://cdn.jsdelivr.net/")
    cdn_files = tmp_path / "cdn" / path
    shutil.copytree(folder / "onnxruntime", cdn_files)
    (cdn_files / "ort.wasm.bundle.min.js").rename(cdn_files / web_page.MODULE)
    if changed:
        with open(cdn_files / changed, "ab") as file:
            # Harmless: a line's end, or a section of its own, so that only the hash stands against it.
            file.write(b"\n" if changed == web_page.MODULE else b"\x00\x02\x01x")
    handler = functools.partial(_Elsewhere, directory=str(tmp_path / "cdn"))
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as cdn:
        facts = json.loads((folder.parent / "export.json").read_text())
        copy = tmp_path / "web"
        monkeypatch.setattr(web_page, "CDN", f"http://127.0.0.1:{cdn.server_port}/{path}")
        web_page.write(copy, folder / "model.onnx", facts)
        with serving(Server(0), copy) as server:
            browser.get(server.url)
            if not changed:
                wait(browser, lambda: text(browser, "answer") == "No picture yet")
                choose(browser, EXAMPLES[1])
                check_answer(browser, classifier.predict(EXAMPLES[1])[0])
                return
            wait(browser, lambda: text(browser, "problem"))
            assert text(browser, "answer") == "The net could not be loaded"
            for wrong in (EXAMPLES[1], Path(__file__)):
                choose(browser, wrong)
                assert text(browser, "answer") == "The net could not be loaded"
            choose(browser, EXAMPLES[1])
            assert "Reload the page" in text(browser, "problem")


def test_opened_as_a_file_it_says_what_to_do(browser: webdriver.Chrome, folder: Path) -> None:
    browser.get((folder / "index.html").as_uri())
    wait(browser, lambda: "serve its folder" in text(browser, "answer"))


# --- how it looks ---


@pytest.mark.parametrize("width", [320, 700, 1400])
def test_it_fits(page: webdriver.Chrome, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        choose(page, Path(__file__))  # so that a problem is shown too
        assert text(page, "problem")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
