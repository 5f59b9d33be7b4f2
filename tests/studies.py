"""A study of small pictures in a folder, and its server as a process of its own, as the tests of the web pages use them."""

import io
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageDraw
from starlette.testclient import TestClient

from creativelib.study.server.app import make_app
from creativelib.study.server.folder import Settings, Study
from creativelib.study.server.guard import Signer
from creativelib.study.stimuli import Stimulus

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds until a server counts as hanging: a busy machine may take its time


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

    def __init__(self, folder: Path, *words: str):
        self.folder, self.words, self.port = folder, list(words), 0
        self.log = folder.parent / f"{folder.name}.log"
        self.start()

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
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
