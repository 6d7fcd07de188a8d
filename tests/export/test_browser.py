"""The exported page in headless Chromium: it answers what `predict` says of the same files."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("selenium", reason="selenium is not installed: pip install selenium")
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from keras_resnet.data.images import read_image
from keras_resnet.export.pipeline import export
from keras_resnet.export.web_server import Server
from keras_resnet.inference.classifier import Classifier
from tests.export.browser import (
    EXAMPLES,
    TOLERANCE,
    check_answer,
    choose,
    complaints,
    probabilities,
    seen,
    serving,
    text,
    wait,
)
from tests.export.nets import another_classifier

pytestmark = pytest.mark.slow


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


def test_a_net_of_another_size_and_more_classes(
    browser: webdriver.Chrome, runtime: Path, tmp_path: Path
) -> None:
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
