"""The exported page in headless Chromium: how tests open it and read it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from keras_resnet.data import constants
from keras_resnet.export import web_page
from keras_resnet.export.pipeline import export
from keras_resnet.export.web_server import Server
from keras_resnet.inference.classifier import Classifier

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.png"))
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def runtime() -> Path:
    """The npm package onnxruntime-web, or a skip that says where it was looked for."""
    place = os.environ.get("ONNXRUNTIME_WEB") or REPOSITORY / "node_modules" / "onnxruntime-web"
    if not Path(place).is_dir():
        pytest.skip(
            f"onnxruntime-web is not in {place}: npm install --no-save "
            f"onnxruntime-web@{web_page.RUNTIME_VERSION}, or name it with $ONNXRUNTIME_WEB"
        )
    return Path(place)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip(
            "Chromium or chromedriver is not installed: apt install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
        "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}", "window-size=1200,900",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as started:
        started.set_script_timeout(60)
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Path:
    """The page of the ResNet-20 that `predict` takes by itself."""
    output = tmp_path_factory.mktemp("page") / "export"
    export("resnet20", output, formats=["web"], runtime=runtime)
    return output / "web"


@contextlib.contextmanager
def serving(server: http.server.HTTPServer, *folder: Path) -> Iterator[Any]:
    run = server.serve if isinstance(server, Server) else server.serve_forever
    thread = threading.Thread(target=run, args=folder)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with serving(Server(0), folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load()


@pytest.fixture
def page(browser: webdriver.Chrome, url: str) -> webdriver.Chrome:
    """The page, loaded, with nothing in its logs."""
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(url)
    wait(browser, lambda: "No picture" in text(browser, "answer"))
    return browser


# --- how a page is read ---


def wait(browser: webdriver.Chrome, condition: Callable[[], Any], seconds: float = 30) -> Any:
    return WebDriverWait(browser, seconds, poll_frequency=0.05).until(lambda _: condition())


def text(browser: webdriver.Chrome, name: str) -> str:
    return browser.find_element(By.ID, name).text


def probabilities(browser: webdriver.Chrome) -> np.ndarray:
    """Of the ten bars, unrounded; empty where no answer is shown."""
    values = browser.execute_script(
        "return [...document.querySelectorAll('#bars data')].map((value) => value.value)"
    )
    return np.array([float(value) for value in values if value])


def seen(browser: webdriver.Chrome) -> np.ndarray:
    """The pixels that the page shows as those that the net sees."""
    values = browser.execute_script(
        "const canvas = document.getElementById('pixels');"
        "const {width, height} = canvas;"
        "return [...canvas.getContext('2d').getImageData(0, 0, width, height).data]"
    )
    return np.array(values, np.uint8).reshape(32, 32, 4)[..., :3]


def choose(browser: webdriver.Chrome, path: Path) -> None:
    """Choose a file and wait for its answer, or for a sentence on what is wrong with it."""
    browser.find_element(By.ID, "file").send_keys(str(path))
    done = f"return document.getElementById('name').textContent === {json.dumps(path.name)}"
    wait(browser, lambda: browser.execute_script(done) or text(browser, "problem"))


def check_answer(browser: webdriver.Chrome, expected: np.ndarray) -> None:
    found = probabilities(browser)
    assert found.shape == (10,)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    best = browser.find_elements(By.CSS_SELECTOR, "#bars .best .class")
    name = constants.CLASS_NAMES["cifar10"][expected.argmax()]
    assert [bar.text for bar in best] == [name]
    assert text(browser, "answer") == f"{name} {100 * found.max():.1f} %"


def requests(browser: webdriver.Chrome) -> list[str]:
    """What was asked for since the log was read last."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console has as errors since it was read last."""
    return [log["message"] for log in browser.get_log("browser") if log["level"] == "SEVERE"]
