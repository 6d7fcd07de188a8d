"""The page's folder and its server, without a browser."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket

import numpy as np
import pytest
from PIL import Image

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import web_page
from keras_resnet.export.web_server import Server
from tests.helpers import REPOSITORY, start_python

FACTS = {
    "name": "resnet20", "model": "resnet", "depth": 20, "dataset": "<b>&", "num_classes": 3,
    "input_shape": (24, 40, 3), "parameters": 1234, "test_error": {"keras": 8.5},
    "versions": {"keras_resnet": "1.2.3"}, "training": None, "class_names": ["<i>", '"', "ship"],
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a net")
    return path


def test_what_is_written(tmp_path, model):
    web_page.write(tmp_path / "web", model, FACTS)
    assert json.loads((tmp_path / "web/model.json").read_text()) == {
        "file": "model.onnx", "integrity": web_page.integrity(b"a net"), "size": [24, 40],
        "classes": FACTS["class_names"],
    }  # fmt: skip
    index = (tmp_path / "web/index.html").read_text()
    assert "$" not in index and "<b>&" not in index
    assert "ResNet-20, trained on &lt;b&gt;&amp;" in index
    assert "1,234 parameters, 8.50 % test error" in index and "What the net sees, 40 × 24" in index
    assert index.count("examples/ship.png") == index.count("examples/") == 1


def test_the_policy_names_two_files_of_the_cdn_and_no_more(tmp_path, model):
    web_page.write(tmp_path / "web", model, FACTS)
    index = (tmp_path / "web/index.html").read_text()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', index)
    (import_map,) = re.findall('<script type="importmap">(.*)</script>', index)
    allowed = {web_page.CDN + name for name in web_page.INTEGRITY}
    assert set(re.findall("https://[^ ;]*", policy)) == allowed and "default-src 'none'" in policy
    assert web_page.integrity(import_map.encode()) in policy
    assert web_page.INTEGRITY[web_page.MODULE] in import_map
    web_page.write(tmp_path / "beside", model, FACTS, {name: b"x" for name in web_page.INTEGRITY})
    index = (tmp_path / "beside/index.html").read_text()
    assert "http" not in index.replace("http-equiv", "").replace("http.server", "")
    assert {path.name for path in (tmp_path / "beside/onnxruntime").iterdir()} == {
        "ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm",
    }  # fmt: skip


def test_another_runtime_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"onnxruntime-web 1\.30\.0 .* lacks ort\.wasm\.bundle"):
        web_page.read_runtime(tmp_path)
    (tmp_path / "dist").mkdir()
    for name in web_page.INTEGRITY:
        (tmp_path / "dist" / name).write_bytes(name.encode())
    with pytest.raises(UserError, match="has another ort.wasm.bundle"):
        web_page.read_runtime(tmp_path)


def ask(port, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="must be a free port .* Received: "):
            Server(other.getsockname()[1])


def test_the_command_serves_until_ctrl_c(tmp_path):
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    (tmp_path / "secret.txt").write_text("secret")
    words = [REPOSITORY / "export.py", "net.keras", "--formats", "web", "--serve", "0"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL")  # the command's own is tested
    with start_python(*words, cwd=tmp_path, env=environment) as process:
        lines = iter(process.stdout.readline, "")
        address = next((line for line in lines if line.startswith("serving")), "")
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", address)
        assert found, process.stderr.read()
        port, model = int(found[1]), (tmp_path / "net-export/model.onnx").read_bytes()
        assert ask(port, "/model.onnx") == (200, "application/octet-stream", model)
        assert ask(port, "/classify.js")[:2] == (200, "text/javascript")
        assert ask(port, "/")[:2] == (200, "text/html") and ask(port, "/../../secret.txt")[0] == 404
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and process.stderr.read() == ""
    assert "--directory web" in (tmp_path / "net-export/README.md").read_text()


def test_the_server_of_the_docs(exported, tmp_path):
    """docs/serving.md's app as printed, without this package, Keras and TensorFlow."""
    pytest.importorskip("fastapi"), pytest.importorskip("uvicorn")
    text = (REPOSITORY / "docs/serving.md").read_text()
    (tmp_path / "serve.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    for name in ("model.onnx", "labels.txt"):
        (tmp_path / name).symlink_to(exported[1] / name)
    code = "import sys; sys.modules.update(dict.fromkeys(['keras_resnet', 'keras', 'tensorflow']))"
    code += "\nimport uvicorn; uvicorn.run('serve:app', port=0)"
    with start_python("-c", code, cwd=tmp_path) as process:
        found = (re.search(r"127\.0\.0\.1:(\d+)", line) for line in process.stderr)
        port = next(int(match[1]) for match in found if match)
        ship = (REPOSITORY / "examples/ship.png").read_bytes()
        answers = []
        for body in (ship, b"I am a poem."):
            status, _, answer = ask(port, "/predict", body)
            answers.append((status, json.loads(answer)))
        process.terminate()
    assert answers[1] == (400, {"detail": "the body must be a picture"})
    image = Image.open(REPOSITORY / "examples/ship.png").convert("RGB").resize((32, 32))
    expected = exported[0].predict(np.asarray(image, np.float32)[None], verbose=0)[0]
    assert answers[0][0] == 200 and list(answers[0][1]) == exported[2]["class_names"]
    np.testing.assert_allclose(list(answers[0][1].values()), expected, atol=1e-5)
