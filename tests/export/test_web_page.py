"""The page's folder and its server, without a browser."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.export import web_page
from keras_resnet.export.web_server import Server

REPOSITORY = Path(__file__).resolve().parents[2]
FACTS = {
    "name": "resnet20", "model": "resnet", "depth": 20, "dataset": "<b>&", "num_classes": 3,
    "input_shape": (24, 40, 3), "parameters": 1234, "test_error": {"keras": 8.5},
    "versions": {"keras_resnet": "1.2.3"}, "training": None, "class_names": ["a", "b", "c"],
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"a net")
    return path


def test_what_is_written(tmp_path: Path, model: Path) -> None:
    classes = ["a", "<i>", '"', "ship"]
    web_page.write(tmp_path / "web", model, FACTS | {"class_names": classes})
    names = {str(path.relative_to(tmp_path / "web")) for path in (tmp_path / "web").rglob("*")}
    assert names == {
        "README.md", "classify.js", "examples", "examples/ship.png", "icon.svg", "index.html",
        "model.json", "model.onnx", "picture.js", "style.css",
    }  # fmt: skip
    assert json.loads((tmp_path / "web/model.json").read_text()) == {
        "file": "model.onnx", "integrity": web_page.integrity(b"a net"), "size": [24, 40],
        "classes": classes,
    }  # fmt: skip
    index = (tmp_path / "web/index.html").read_text()
    assert "$" not in index and "<b>&" not in index
    assert "ResNet-20, trained on &lt;b&gt;&amp;" in index
    assert "1,234 parameters, 8.50 % test error" in index and "What the net sees, 40 × 24" in index
    front = (tmp_path / "web/README.md").read_text().split("---\n")[1]
    assert front == 'title: "ResNet-20, trained on <b>&"\nsdk: static\n'
    assert index.count("examples/ship.png") == index.count("examples/") == 1


def test_the_examples_are_of_classes_that_the_net_knows(tmp_path: Path, model: Path) -> None:
    pictures = sorted((REPOSITORY / "examples").iterdir())
    facts = FACTS | {"class_names": [path.stem for path in pictures]}
    web_page.write(tmp_path / "web", model, facts)
    assert sorted((tmp_path / "web/examples").iterdir()) == [
        tmp_path / "web/examples" / path.name for path in pictures
    ]
    web_page.write(tmp_path / "none", model, FACTS)
    assert "xamples" not in (tmp_path / "none/index.html").read_text()
    assert "aria-labelledby" in (tmp_path / "none/index.html").read_text()


def test_the_policy_names_two_files_of_the_cdn_and_no_more(tmp_path: Path, model: Path) -> None:
    web_page.write(tmp_path / "web", model, FACTS)
    index = (tmp_path / "web/index.html").read_text()
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', index)
    base = "https://cdn.jsdelivr.net/npm/onnxruntime-web@1.30.0/dist/"
    (import_map,) = re.findall('<script type="importmap">(.*)</script>', index)
    module = {f"{base}ort.wasm.bundle.min.mjs": web_page.INTEGRITY[web_page.MODULE]}
    assert json.loads(import_map) == {"integrity": module}
    digest = base64.b64encode(hashlib.sha384(import_map.encode()).digest()).decode()
    assert dict(part.strip().split(" ", 1) for part in policy.split(";")) == {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' 'sha384-{digest}' {base}ort.wasm.bundle.min.mjs",
        "connect-src": f"'self' {base}ort-wasm-simd-threaded.wasm",
        "style-src": "'self'", "img-src": "'self'", "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert index.count("https://") == 5  # the two, where they are loaded, and the module's hash
    runtime = {name: b"x" for name in web_page.INTEGRITY}
    web_page.write(tmp_path / "beside", model, FACTS, runtime)
    index = (tmp_path / "beside/index.html").read_text()
    assert "http" not in index.replace("http-equiv", "").replace("http.server", "")
    assert {path.name for path in (tmp_path / "beside/onnxruntime").iterdir()} == {
        "ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm",
    }  # fmt: skip


def test_another_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"onnxruntime-web 1\.30\.0 .* without ort\.wasm\.bundle"):
        web_page.read_runtime(tmp_path)
    (tmp_path / "dist").mkdir()
    for name in web_page.INTEGRITY:
        (tmp_path / "dist" / name).write_bytes(name.encode())
    with pytest.raises(UserError, match="with another version of ort.wasm.bundle"):
        web_page.read_runtime(tmp_path)
    hashes = {name: web_page.integrity(name.encode()) for name in web_page.INTEGRITY}
    monkeypatch.setattr(web_page, "INTEGRITY", hashes)
    expected = {name: name.encode() for name in hashes}
    assert web_page.read_runtime(tmp_path) == web_page.read_runtime(tmp_path / "dist") == expected


# --- the server ---


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "web" / "examples").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    for name in ("index.html", "a.js", "c.wasm", "d.css", "e.onnx", "f.json", "g.svg"):
        (tmp_path / "web" / name).write_text(name)
    with Server(0) as server:
        thread = threading.Thread(target=server.serve, args=[tmp_path / "web"])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    found = response.status, response.getheader("Content-Type", ""), response.read()
    connection.close()
    return found


def test_the_server_knows_the_types_that_browsers_ask_for(served: Server) -> None:
    types = {
        "/": "text/html; charset=utf-8", "/a.js": "text/javascript; charset=utf-8",
        "/c.wasm": "application/wasm", "/d.css": "text/css; charset=utf-8",
        "/e.onnx": "application/octet-stream",
        "/f.json": "application/json", "/g.svg": "image/svg+xml",
    }  # fmt: skip
    for path, kind in types.items():
        assert ask(served, path) == (200, kind, path[1:].encode() or b"index.html")


def test_the_server_gives_nothing_but_the_files_of_its_folder(served: Server) -> None:
    assert served.socket.getsockname()[0] == "127.0.0.1"
    for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/examples/", "//secret.txt", "/none"):
        status, _, body = ask(served, path)
        assert status == 404 and b"secret" not in body, path
    assert ask(served, "/", "POST")[0] == 501


def test_the_server_answers_to_this_machines_names_alone(served: Server) -> None:
    for host in ("localhost:8000", "127.0.0.1", f"localhost:{served.server_port}"):
        assert ask(served, "/a.js", Host=host)[0] == 200
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert ask(served, "/a.js", Host=host)[0] == 421, host
    assert ask(served, "/a.js", Host="[::1")[0] == 400
    assert ask(served, "/a%00.js")[0] == 400


def test_a_port_that_is_taken() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="must be a free port. Received: "):
            Server(other.getsockname()[1])


def test_the_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    keras_resnet.resnet(8).save(tmp_path / "net.keras")
    command = [sys.executable, REPOSITORY / "export.py", "net.keras", "--formats", "web"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(tmp_path)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL")  # the command's own is tested
    with subprocess.Popen(
        [*command, "--serve", "0"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        lines = []
        while line := process.stdout.readline():
            lines.append(line)
            if line.startswith("serving"):
                break
        assert lines and (address := re.search(r"http://127\.0\.0\.1:(\d+)/", lines[-1])), (
            process.stderr.read()
        )
        connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=10)
        connection.request("GET", "/model.onnx")
        served = connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0 and process.stderr.read() == ""
    assert served == (tmp_path / "net-export/model.onnx").read_bytes()
    card = (tmp_path / "net-export/README.md").read_text()
    assert "--directory web" in card
