"""The exported page in headless Chromium: it answers what `predict` says of the same files."""

import base64
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")
from selenium.webdriver.support.ui import WebDriverWait

from keras_resnet.data import constants
from keras_resnet.data.images import read_image
from keras_resnet.export import web_page
from keras_resnet.export.pipeline import export
from keras_resnet.export.web_server import Server
from keras_resnet.inference.classifier import Classifier
from tests.export.nets import another_classifier
from tests.helpers import REPOSITORY

pytestmark = pytest.mark.slow
NAMES = ("airplane", "automobile", "ship", "truck")
EXAMPLES = [REPOSITORY / f"examples/{name}.png" for name in NAMES]


@pytest.fixture(scope="module")
def runtime():
    """The npm package onnxruntime-web, or a skip that says where it was looked for."""
    place = os.environ.get("ONNXRUNTIME_WEB") or REPOSITORY / "node_modules" / "onnxruntime-web"
    if not Path(place).is_dir():
        pytest.skip(f"{place} is missing: npm install onnxruntime-web@{web_page.RUNTIME_VERSION}")
    return Path(place)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("Chromium or its driver is missing: apt install chromium chromium-driver")
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
        yield started


@contextlib.contextmanager
def serving(server, *folder):
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
def folder(tmp_path_factory, runtime):
    """The page of the ResNet-20 that `predict` takes by itself."""
    output = tmp_path_factory.mktemp("page") / "export"
    export("resnet20", output, formats=["web"], runtime=runtime)
    return output / "web"


@pytest.fixture(scope="module")
def url(folder):
    with serving(Server(0), folder) as server:
        yield server.url


@pytest.fixture(scope="module")
def classifier():
    return Classifier.load()


@pytest.fixture
def page(browser, url):
    """The page, which has classified its first example, with nothing in its logs."""
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(url)
    wait(browser, lambda: text(browser, "name") == EXAMPLES[0].name)
    return browser


def wait(browser, condition):
    return WebDriverWait(browser, 30, poll_frequency=0.05).until(lambda _: condition())


def text(browser, name):
    return browser.find_element("id", name).text


def probabilities(browser):
    """Of the ten bars, unrounded, in their order; empty where no answer is shown."""
    bars = "return [...document.querySelectorAll('#bars data')].map((value) => value.value)"
    return np.array([float(value) for value in browser.execute_script(bars) if value])


def choose(browser, path):
    """Choose a file and wait for its answer, or for a sentence on what is wrong with it."""
    browser.find_element("id", "file").send_keys(str(path))
    done = f"return document.getElementById('name').textContent === {json.dumps(path.name)}"
    wait(browser, lambda: browser.execute_script(done) or text(browser, "problem"))


def check_answer(browser, expected):
    found = probabilities(browser)
    np.testing.assert_allclose(found, np.sort(expected)[::-1], atol=1e-3)
    name = constants.CLASS_NAMES["cifar10"][expected.argmax()]
    assert text(browser, "answer") == f"{name} {100 * found.max():.1f} %"


def pictures(folder):
    """Pictures of every kind that both read, drawn from the examples."""
    plane, car, ship, truck = (PIL.Image.open(path).convert("RGB") for path in EXAMPLES)
    see_through, photo = ship.copy(), ship.resize((900, 600))
    see_through.putalpha(PIL.Image.linear_gradient("L").resize(ship.size))
    lighter = PIL.PngImagePlugin.PngInfo()
    lighter.add(b"gAMA", (100_000).to_bytes(4, "big"))  # a browser would lighten the picture by it
    values = np.asarray(ship.convert("L")).astype(np.uint16) * 200 + 77
    kinds = {
        "large.jpg": (truck.resize((2500, 1700)), {"quality": 85}),
        "progressive.jpg": (plane.resize((301, 203)), {"progressive": True, "subsampling": 0}),
        "cmyk.jpg": (car.convert("CMYK"), {}),
        "see-through.png": (see_through, {}),
        "palette.png": (car.quantize(64), {"transparency": 3}),
        "one-bit.png": (plane.convert("1"), {}),
        "tiny.png": (ship.resize((3, 2)), {}),
        "gamma.png": (car, {"icc_profile": None, "pnginfo": lighter}),
        "ship.gif": (ship.quantize(128), {}),
        "plane.webp": (plane, {"lossless": True}),
        "gray16.png": (PIL.Image.fromarray(values), {}),
    }
    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        kinds[f"turned-{orientation}.jpg"] = (photo, {"exif": exif, "quality": 90})
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
        yield folder / name


def test_every_kind_of_picture_gets_what_predict_gives(page, url, classifier, tmp_path):
    pixels = (
        "const canvas = document.getElementById('pixels');"
        "return [...canvas.getContext('2d').getImageData(0, 0, 32, 32).data]"
    )
    for path in [*pictures(tmp_path), *EXAMPLES]:
        choose(page, path)
        assert text(page, "problem") == "", path.name
        seen = np.reshape(page.execute_script(pixels), (32, 32, 4))[..., :3]
        # Browsers round 16 bits otherwise.
        assert abs(seen - read_image(path)).max() <= (path.name == "gray16.png"), path.name
        check_answer(page, classifier.predict(path)[0])
    assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    entries = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [e["params"] for e in entries if e["method"] == "Network.requestWillBeSent"]
    asked = [one["request"]["url"] for one in sent]
    assert f"{url}onnxruntime/{web_page.WASM}" in asked  # and no request leaves this machine
    assert [one for one in asked if not one.startswith((url, "data:", "blob:"))] == []


def test_a_net_of_another_size_and_more_classes(browser, runtime, tmp_path):
    """Of twelve classes the ten most probable, sorted; 24 x 40 pixels, of which none is square."""
    another_classifier(classes=12).save(tmp_path / "net.keras")
    names = [f"<class> {k}" for k in range(12)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    export(tmp_path / "net.keras", formats=["web"], runtime=runtime)
    with serving(Server(0), tmp_path / "net-export/web") as server:
        browser.get(server.url)
        wait(browser, lambda: "No picture" in text(browser, "answer"))
        choose(browser, EXAMPLES[1])
    expected = Classifier.load(tmp_path / "net-export/model.onnx").predict(EXAMPLES[1])[0]
    np.testing.assert_allclose(probabilities(browser), np.sort(expected)[:1:-1], atol=1e-3)
    labels = [bar.text for bar in browser.find_elements("css selector", "#bars .class")]
    assert labels == [names[k] for k in np.argsort(-expected)[:10]]


def test_dropping_pasting_examples_and_the_webcam(page, classifier):
    box = page.find_element("id", "drop").rect
    at = {"x": box["x"] + 50, "y": box["y"] + 80}
    data = {"items": [], "files": [str(EXAMPLES[2])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):  # as the browser itself drops a file
        page.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
    wait(page, lambda: text(page, "name") == EXAMPLES[2].name)
    check_answer(page, classifier.predict(EXAMPLES[2])[0])
    paste = (
        "const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
        "const clipboardData = new DataTransfer();"
        "clipboardData.items.add(new File([bytes], 'image.png', {type: 'image/png'}));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true}));"
    )
    page.execute_script(paste, base64.b64encode(EXAMPLES[0].read_bytes()).decode())
    wait(page, lambda: text(page, "name") == "image.png")
    check_answer(page, classifier.predict(EXAMPLES[0])[0])
    page.find_elements("css selector", "#examples button")[-1].click()
    wait(page, lambda: text(page, "name") == "truck.png")
    check_answer(page, classifier.predict(EXAMPLES[3])[0])
    page.find_element("id", "camera").click()
    wait(page, lambda: text(page, "name") == "Webcam")
    assert probabilities(page).sum() == pytest.approx(1, abs=1e-5)
    choose(page, EXAMPLES[3])  # ends the webcam
    assert text(page, "camera") == "Use the webcam"
    page.execute_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') }"
    )
    page.find_element("id", "camera").click()
    wait(page, lambda: text(page, "problem") == "There is no webcam: choose a picture.")


def test_bad_files_get_a_sentence(page, classifier, tmp_path):
    ship, large = EXAMPLES[2].read_bytes(), io.BytesIO()
    PIL.Image.new("1", (8_001, 8_000)).save(large, "png")
    cases = {
        "poem.png": (b"I am a poem.\n", "is not a picture in PNG, JPEG"),
        "empty.png": (b"", "is empty: 0 bytes"),
        "large.png": (large.getvalue(), "has 8,001 × 8,000 pixels; at most 64,000,000"),
        "torn.png": (ship[:100], "could not be read: it is damaged"),
        "loop.jpg": (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 100, "is not a picture"),
        "<b>.txt": (b"<b>bold</b>", "<b>.txt is not a picture"),
    }
    for name, (content, sentence) in cases.items():
        (tmp_path / name).write_bytes(content)
        choose(page, tmp_path / name)
        problem = text(page, "problem")
        assert problem.startswith(name) and sentence in problem, problem
        assert probabilities(page).size == 0 and text(page, "answer") == "No picture yet"
        choose(page, EXAMPLES[2])  # the page lives on
        check_answer(page, classifier.predict(EXAMPLES[2])[0])


@pytest.mark.parametrize("height", [700, 480])
def test_on_a_phone_the_answer_is_on_the_screen(page, tmp_path, height):
    """Without scrolling where there is room; else the page scrolls by itself."""
    picture = tmp_path / f"{'a long name ' * 9}.png"
    shutil.copy(EXAMPLES[2], picture)
    phone = {"width": 375, "height": height, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        choose(page, picture)
        bottom = "return document.getElementById('answer').getBoundingClientRect().bottom"
        wait(page, lambda: page.execute_script(bottom) <= height)
        assert (page.execute_script("return scrollY") == 0) == (height == 700)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


class _Elsewhere(http.server.SimpleHTTPRequestHandler):
    """Stands for the CDN: another origin, whose files any page may read."""

    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.mark.parametrize("changed", ["", web_page.MODULE, web_page.WASM])
def test_a_changed_runtime_is_not_run(browser, folder, classifier, tmp_path, monkeypatch, changed):
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
        monkeypatch.setattr(web_page, "CDN", f"http://127.0.0.1:{cdn.server_port}/{path}")
        web_page.write(tmp_path / "web", folder / "model.onnx", facts)
        with serving(Server(0), tmp_path / "web") as server:
            browser.get(server.url)
            if changed:
                wait(browser, lambda: text(browser, "problem"))
                assert text(browser, "answer") == "The net could not be loaded"
            else:
                wait(browser, lambda: text(browser, "name") == EXAMPLES[0].name)
                choose(browser, EXAMPLES[1])
                check_answer(browser, classifier.predict(EXAMPLES[1])[0])
