"""The exported page in headless Chromium: what a user does, and what `predict` says of the same files."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

pytest.importorskip(
    "selenium", reason="selenium is not installed: pip install -r requirements-dev.txt"
)
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from keras_resnet.data import constants
from keras_resnet.export import web_page
from keras_resnet.export.pipeline import export
from keras_resnet.export.web_server import Server
from keras_resnet.inference import zoo
from keras_resnet.inference.classifier import Classifier
from keras_resnet.inference.images import read_image
from tests.helpers import bomb_png

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.png"))
TOLERANCE = 1e-3

pytestmark = pytest.mark.slow


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
    export(zoo.resolve(), output, kinds=["web"], runtime=runtime)
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


# --- the same answers as predict ---


def pictures(folder: Path) -> dict[str, Path]:
    """Pictures of every kind that both read, drawn from the examples."""
    ship, truck, plane, car = (PIL.Image.open(EXAMPLES[k]).convert("RGB") for k in (2, 3, 0, 1))
    mask = PIL.Image.linear_gradient("L")
    made: dict[str, Path] = {}

    def save(name: str, image: PIL.Image.Image, **options: Any) -> None:
        made[name] = folder / name
        image.save(made[name], **options)

    for orientation in range(1, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        photo = ship.resize((900, 600))
        save(f"turned-{orientation}.jpg", photo, exif=exif, quality=90)
    save("large.jpg", truck.resize((2500, 1700)), quality=85)
    save("progressive.jpg", plane.resize((301, 203)), progressive=True, subsampling=0)
    save("gray.jpg", car.convert("L"))
    save("cmyk.jpg", car.convert("CMYK"))
    save("see-through.png", with_alpha(ship, mask.resize(ship.size)))
    save("gray.png", truck.convert("L"))
    save("gray-see-through.png", with_alpha(plane, mask.resize(plane.size)).convert("LA"))
    save("palette.png", car.quantize(64), transparency=3)
    save("one-bit.png", plane.convert("1"))
    save("small.png", ship.resize((32, 32)))
    save("tiny.png", ship.resize((3, 2)))
    save("narrow.png", truck.resize((5, 700)))
    save("gamma.png", car, icc_profile=None, pnginfo=png_gamma())
    save("ship.gif", ship.quantize(128))
    save("truck.bmp", truck.resize((111, 77)))
    save("plane.webp", plane, lossless=True)
    values = np.asarray(ship.convert("L")).astype(np.uint16) * 200 + 77
    save("gray16.png", PIL.Image.fromarray(values))
    return made


def with_alpha(image: PIL.Image.Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    image = image.convert("RGBA")
    image.putalpha(mask)
    return image


def png_gamma() -> Any:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))  # a browser would lighten the picture by it
    return info


def test_every_kind_of_picture_gets_what_predict_gives(
    page: webdriver.Chrome, classifier: Classifier, tmp_path: Path
) -> None:
    made = pictures(tmp_path)
    for name, path in [*made.items(), *((path.name, path) for path in EXAMPLES)]:
        choose(page, path)
        assert text(page, "problem") == "", name
        off = abs(seen(page).astype(int) - read_image(path).astype(int)).max()
        expected = classifier.predict(path)[0]
        assert off <= (name == "gray16.png"), name  # browsers round 16 bits otherwise
        check_answer(page, expected)
    assert not complaints(page)


def mean_color_net(path: Path, matrix: np.ndarray, size: tuple[int, int]) -> None:
    """An ONNX file with our interface: class probabilities from the mean color."""
    kind, helper = onnx.TensorProto, onnx.helper
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=kind.FLOAT),
        helper.make_node("ReduceMean", ["values"], ["color"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["color", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    image = helper.make_tensor_value_info("image", kind.UINT8, ["batch", *size, 3])
    output = helper.make_tensor_value_info("probabilities", kind.FLOAT, ["batch", matrix.shape[1]])
    graph = helper.make_graph(
        nodes, "net", [image], [output], [onnx.numpy_helper.from_array(matrix, "matrix")]
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_a_net_of_another_size_and_more_classes(
    browser: webdriver.Chrome, folder: Path, runtime: Path, tmp_path: Path
) -> None:
    """Of twelve classes the ten most probable, sorted; 24 x 40 pixels, of which none is square."""
    matrix = np.random.default_rng(0).normal(0, 0.01, (3, 12)).astype(np.float32)
    mean_color_net(tmp_path / "model.onnx", matrix, (24, 40))
    facts = json.loads((folder.parent / "export.json").read_text())
    facts |= {"input_shape": [24, 40, 3], "num_classes": 12}
    names = [f"<class> {k}" for k in range(12)]
    files = web_page.read_runtime(runtime)
    web_page.write(tmp_path / "web", tmp_path / "model.onnx", facts, names, files)
    with serving(Server(0), tmp_path / "web") as server:
        browser.get(server.url)
        wait(browser, lambda: "No picture" in text(browser, "answer"))
        choose(browser, EXAMPLES[1])
    logits = read_image(EXAMPLES[1], (24, 40)).mean(axis=(0, 1)) @ matrix
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(probabilities(browser), np.sort(expected)[:1:-1], atol=TOLERANCE)
    labels = [bar.text for bar in browser.find_elements(By.CSS_SELECTOR, "#bars .class")]
    assert labels == [names[k] for k in np.argsort(-expected)[:10]]


# --- ways in ---


def test_a_file_that_is_dropped(page: webdriver.Chrome, classifier: Classifier) -> None:
    """As the browser itself drops it, not by an event of a script."""
    box = page.find_element(By.ID, "drop").rect
    at = {"x": box["x"] + 50, "y": box["y"] + 80}
    data = {"items": [], "files": [str(EXAMPLES[2])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
    wait(page, lambda: text(page, "name") == EXAMPLES[2].name)
    check_answer(page, classifier.predict(EXAMPLES[2])[0])
    assert "over" not in page.find_element(By.ID, "drop").get_attribute("class")


def test_a_picture_that_is_pasted(page: webdriver.Chrome, classifier: Classifier) -> None:
    paste = (
        "const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));"
        "const clipboardData = new DataTransfer();"
        "if (bytes.length) clipboardData.items.add("
        "  new File([bytes], 'image.png', {type: 'image/png'}));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true}));"
    )
    page.execute_script(paste, base64.b64encode(EXAMPLES[0].read_bytes()).decode())
    wait(page, lambda: text(page, "name") == "image.png")
    check_answer(page, classifier.predict(EXAMPLES[0])[0])
    page.execute_script(paste, "")
    assert text(page, "problem") == "The clipboard holds no picture."


def test_the_keyboard_reaches_everything(page: webdriver.Chrome, classifier: Classifier) -> None:
    keys = webdriver.ActionChains(page)
    names = []
    for _ in range(7):
        keys.send_keys(Keys.TAB).perform()
        active = page.switch_to.active_element
        names.append(active.accessible_name)
        outlined = page.execute_script(
            "const active = document.activeElement;"
            "const shown = active.id === 'file' ? active.nextElementSibling : active;"
            "return getComputedStyle(shown).outlineStyle"
        )
        assert outlined == "solid", names
    assert names == [
        "Choose a picture", "Use the webcam", "airplane", "automobile", "ship", "truck",
        "Download the net",
    ]  # fmt: skip
    webdriver.ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(
        Keys.SHIFT
    ).send_keys(Keys.ENTER).perform()
    wait(page, lambda: text(page, "name") == "truck.png")
    check_answer(page, classifier.predict(EXAMPLES[3])[0])


def test_a_screen_reader_is_told(page: webdriver.Chrome) -> None:
    choose(page, EXAMPLES[2])
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nodes = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node["ignored"]
    ]
    assert ("heading", "ResNet-20, trained on CIFAR-10") in nodes
    assert ("image", "The picture, ship.png, 192 by 192 pixels") in nodes
    assert ("list", "Probability of each class") in nodes
    assert ("region", "Picture") in nodes and ("region", "Answer") in nodes
    live = {
        node["role"]["value"]: {p["name"]: p["value"].get("value") for p in node["properties"]}[
            "live"
        ]
        for node in tree
        if node.get("role", {}).get("value") in ("status", "alert")
    }
    assert live == {"status": "polite", "alert": "assertive"}
    assert page.execute_script("return document.documentElement.lang") == "en"


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


def test_a_file_that_is_read_while_the_webcam_is_refused(page: webdriver.Chrome) -> None:
    page.execute_script(
        "navigator.mediaDevices.getUserMedia = async () => {"
        "  await new Promise((go) => (window.go = go));"
        "  throw new DOMException('no', 'NotAllowedError');"
        "};"
        "const decode = window.createImageBitmap;"
        "window.createImageBitmap = async (...all) => {"
        "  await new Promise((go) => (window.decoded = go));"
        "  return decode(...all);"
        "}"
    )
    page.find_element(By.ID, "file").send_keys(str(EXAMPLES[3]))
    wait(page, lambda: page.execute_script("return Boolean(window.decoded)"))
    page.find_element(By.ID, "camera").click()
    wait(page, lambda: page.execute_script("return Boolean(window.go)"))
    page.execute_script("window.go()")
    wait(page, lambda: "may not use the webcam" in text(page, "problem"))
    page.execute_script("window.decoded()")
    wait(page, lambda: text(page, "name") == EXAMPLES[3].name)
    assert text(page, "time").startswith("The net took")


def test_a_webcam_that_ends_is_told(page: webdriver.Chrome) -> None:
    page.execute_script(
        "const media = navigator.mediaDevices, ask = media.getUserMedia.bind(media);"
        "media.getUserMedia = async (wish) => (window.given = await ask(wish))"
    )
    page.find_element(By.ID, "camera").click()
    wait(page, lambda: text(page, "name") == "Webcam")
    page.execute_script(
        "const [track] = window.given.getVideoTracks();"
        "track.stop();"
        "track.dispatchEvent(new Event('ended'))"  # sent by itself where no page stopped it
    )
    wait(page, lambda: "The webcam has stopped" in text(page, "problem"))
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


def test_a_bad_file_while_the_net_is_loading(browser: webdriver.Chrome, folder: Path) -> None:
    come = threading.Event()

    class Slow(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/model.onnx":
                come.wait(30)
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Slow, directory=str(folder))
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        browser.get(f"http://127.0.0.1:{server.server_port}/")
        choose(browser, Path(__file__))
        assert "is no picture" in text(browser, "problem")
        assert text(browser, "answer").startswith("Loading the net")
        come.set()
        wait(browser, lambda: text(browser, "answer") == "No picture yet")


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


def test_the_policy_stops_what_is_not_named(page: webdriver.Chrome) -> None:
    fetched = page.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done('sent'), (error) => done(String(error)))"
    )
    assert "TypeError" in fetched
    page.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true'; document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">')"
    )
    assert page.execute_script("return window.ran") is None
    log = " ".join(entry["message"] for entry in page.get_log("browser"))
    assert log.count("Content Security Policy") >= 3, log


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
        web_page.write(copy, folder / "model.onnx", facts, classifier.class_names)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 700, 1400])
def test_it_fits_and_can_be_read(page: webdriver.Chrome, scheme: str, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    try:
        choose(page, Path(__file__))  # for the color of what goes wrong
        assert text(page, "problem")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        colors = page.execute_script(
            """
            const back = (node) => {
              const color = getComputedStyle(node).backgroundColor;
              return color === "rgba(0, 0, 0, 0)" ? back(node.parentElement) : color;
            };
            const names = "h1, h2, h3, p:not(:empty), figcaption, .button, .class, .percent, a";
            return [...document.querySelectorAll(names)].map(
              (node) => [node.textContent, getComputedStyle(node).color, back(node)]);
            """
        )
        assert len(colors) > 30
        for what, front, back in colors:
            assert contrast(front, back) >= 4.5, what
        dark = luminance(
            page.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
        assert (dark < 0.05) == (scheme == "dark")
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(color: str) -> float:
    """Relative luminance as WCAG 2 has it, of `rgb(1, 2, 3)`."""
    channels = [int(value) / 255 for value in color.strip("rgba()").split(",")[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)
