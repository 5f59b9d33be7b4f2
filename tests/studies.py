"""A study of small pictures in a folder, and its server as a process of its own, as the tests of the web pages use them."""

import asyncio
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

from creativelib.study.server.app import make_app
from creativelib.study.server.folder import Settings, Study
from creativelib.study.server.guard import Signer
from creativelib.study.stimuli import Stimulus

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "creativelib" / "study" / "server" / "deploy"
PATIENCE = 60  # seconds until a server counts as hanging: a busy machine may take its time


def finished(coroutine):
    """What it returns, run in a thread of its own: a browser that an earlier test drove leaves a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()  # noqa: TID251 - the one place


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def picture(number: int) -> bytes:
    image = Image.new("RGB", (64, 64), "white")
    draw = ImageDraw.Draw(image)
    draw.ellipse((8, 8, 56, 56), fill=(20 + 37 * number % 200, 60 + 53 * number % 180, 90 + 11 * number % 160))
    draw.rectangle((number % 50, number // 50, number % 50 + 6, number // 50 + 6), fill="black")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def stimuli(runs: int = 4, outsiders: int = 0, repeats: int = 0) -> list[Stimulus]:
    """Three pictures of each run, as in the design of the paper's two claims."""
    images = [
        Stimulus.blinded("image", picture(3 * run + step), seed=run, iteration=24 * step, surprise=70.0 + 40 * step + run)
        for run in range(runs)
        for step in range(3)
    ]
    again = [Stimulus.blinded("repeat", one.png, of=one.id, seed=one.seed, iteration=one.iteration) for one in images[:repeats]]
    return [*images, *again, *(Stimulus.blinded("outsider", picture(900 + number)) for number in range(outsiders))]


def make_study(folder: Path, runs: int = 4, outsiders: int = 0, repeats: int = 0, **settings) -> Path:
    Study.new(folder, stimuli(runs, outsiders, repeats), Settings("alien", "Ann Other, room 7", **settings)).close()
    return folder


class Server:
    """``creativelib study serve`` as a process, on a port that it keeps over restarts."""

    def __init__(self, folder: Path, *words: str, port: int = 0):
        self.folder, self.words, self.port = folder, list(words), port
        self.log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        self.port = self.port or free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "creativelib", "study", "serve", str(self.folder), "--host", "127.0.0.1"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), *self.words],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        end = time.monotonic() + PATIENCE
        while not (found := re.search(r"class:\s+\S+/join/(\S+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        self.link = found.group(1)
        self.token = re.search(r"the token  (\S+)", self.log.read_text()).group(1)
        while True:
            try:
                assert httpx.get(f"{self.base}/alive").text == "yes"
                return
            except httpx.TransportError:
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(PATIENCE)


class Proxy:
    """Caddy with the shipped Caddyfile in front of a server, on ports and with a certificate of this machine's own."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.plain, self.server = folder, free_port(), free_port(), free_port()
        self.base = f"https://localhost:{self.port}"
        folder.mkdir()
        options = f"admin off\nskip_install_trust\ndefault_bind 127.0.0.1\nhttp_port {self.plain}\nhttps_port {self.port}"
        (folder / "Caddyfile").write_text(f"{{\n{options}\n}}\nimport {DEPLOY / 'Caddyfile'}\n")

    def start(self) -> None:
        places = {name: str(self.folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        names = {"STUDY_HOST": "localhost", "STUDY_SERVER": f"127.0.0.1:{self.server}"}
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(self.folder / "Caddyfile")]
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | places | names)
        end, root = time.monotonic() + PATIENCE, self.folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        while True:
            try:
                self.verify = ssl.create_default_context(cafile=root)
                assert httpx.get(f"{self.base}/alive", verify=self.verify).text == "yes"
                return
            except (OSError, httpx.TransportError):
                assert self.process.poll() is None and time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def proxied(tmp_path_factory):
    """A study of two runs whose server stands behind Caddy: the folder, the server and the proxy."""
    if shutil.which("caddy") is None:
        missing = "Caddy is not installed: apt-get install caddy"
        (pytest.fail if os.environ.get("CREATIVELIB_CADDY") == "required" else pytest.skip)(missing)
    folder = tmp_path_factory.mktemp("proxied")
    proxy = Proxy(folder / "proxy")
    make_study(folder / "study", runs=2, outsiders=1, pairs=1)
    words = ["--address", proxy.base, "--proxy", "127.0.0.1", "--joins-per-minute", "3"]
    server = Server(folder / "study", *words, port=proxy.server)
    try:
        proxy.start()
        yield SimpleNamespace(folder=folder / "study", server=server, proxy=proxy)
        proxy.stop()
    finally:
        server.stop()


def new_name():
    return secrets.token_hex(16)


class Person:
    """Somebody with a browser of their own, as its scripts speak with the server."""

    def __init__(self, app, study):
        self.study, self.key = study, new_name()
        self.web = httpx.Client(base_url=app.base) if hasattr(app, "base") else TestClient(app, follow_redirects=False)
        self.link = Signer(study.secret).token("class", "class")

    def join(self, **changes):
        body = {"link": self.link, "key": self.key, "agreed": True, "version": self.study.version(), "source": {}}
        text = json.dumps(body | changes)  # as scripts write it: half a letter is an escape
        self.answer = self.web.post("/api/join", content=text, headers={"content-type": "application/json"})
        return self.answer.json()

    def send(self, *answers):
        return self.web.post("/api/answers", json={"answers": [{"answer": new_name()} | one for one in answers]})

    def rate(self, stimulus, value, **changes):
        return self.send({"do": "rate", "stimulus": stimulus, "value": value, "milliseconds": 900} | changes)

    def finish(self, value=None):
        """Rate everything with this value, else as somebody who finds the middle of each run creative."""
        state = self.join()
        values = {
            one.id: (2 + one.seed % 2, 4, 1 + one.seed % 2)[one.iteration // 24]
            for one in self.study.stimuli.values()
            if one.seed is not None
        }
        answers = {one: values.get(one, 0) if value is None else value for one in state["order"]}
        self.send(*({"do": "rate", "stimulus": one, "value": given, "milliseconds": 900} for one, given in answers.items()))
        pairs = [{"do": "choose", "left": left, "right": right, "chosen": "left"} for left, right, _ in state["pairs"]]
        return self.send(*pairs).json() if pairs else self.web.get("/api/state").json()


@pytest.fixture
def study(tmp_path):
    study = Study(make_study(tmp_path / "study", runs=3, outsiders=1, repeats=1, pairs=2))
    yield study
    study.close()


@pytest.fixture
def app(study):
    return make_app(study)


@pytest.fixture
def person(app, study):
    return Person(app, study)


@pytest.fixture
def teacher(app, study):
    web = TestClient(app)
    assert web.post("/teacher/sign-in", data={"token": study.teacher_token}).url.path == "/teacher/"
    web.form = re.search(r'name="form" value="(\w+)"', web.get("/teacher/").text).group(1)
    return web
