"""The server of a study under load, over HTTP on this machine: none lost, none doubled, balanced, whatever is killed.

The whole sizes (600 people, 50 at once, 20 kills) run with CREATIVELIB_SLOW=1; by default a tenth of them.
"""

import asyncio
import os
import random
import secrets
import statistics
import time
from dataclasses import dataclass, field

import httpx
import pytest
from studies import Server, finished, picture

from creativelib.study.server.folder import Settings, Study
from creativelib.study.stimuli import Stimulus

FULL = os.environ.get("CREATIVELIB_SLOW") == "1"
PEOPLE, AT_ONCE, KILLS = (600, 50, 20) if FULL else (60, 25, 4)
EACH = 10  # pictures that each person rates
LONGEST = 1500 if FULL else 240  # seconds


@dataclass
class Crowd:
    """People with browsers that send again what was not acknowledged."""

    server: Server
    version: str
    acknowledged: dict[str, tuple[str, str, int]] = field(default_factory=dict)  # name -> code, stimulus, value
    seconds: list[float] = field(default_factory=list)
    lost: int = 0  # requests without an answer

    async def ask(self, client, method, path, **options):
        for turn in range(200):
            begin = time.monotonic()
            try:
                answer = await client.request(method, self.server.base + path, **options)
                self.seconds.append(time.monotonic() - begin)
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            except httpx.TransportError:
                self.lost += 1
            await asyncio.sleep(min(2, 0.1 * 2**turn) * (0.75 + random.random() / 2))
        raise AssertionError(f"{path}: no answer after 200 tries")

    async def person(self, gate, number):
        async with gate, httpx.AsyncClient(verify=False, timeout=30) as client:
            key = secrets.token_hex(16)
            body = {"link": self.server.link, "key": key, "agreed": True, "version": self.version, "source": {}}
            state = (await self.ask(client, "POST", "/api/join", json=body)).json()
            for place, stimulus in enumerate(state["order"]):
                value = (number + place) % 6
                one = {"answer": secrets.token_hex(16), "do": "rate", "stimulus": stimulus, "value": value, "milliseconds": 900}
                for _ in range(1 + (place % 5 == 0)):  # some are sent twice
                    answer = await self.ask(client, "POST", "/api/answers", json={"answers": [one]})
                    assert answer.status_code == 200 and answer.json()["done"][one["answer"]] in ("kept", "known"), answer.text
                self.acknowledged[one["answer"]] = (state["code"], stimulus, value)

    async def rate(self):
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.wait_for(asyncio.gather(*(self.person(gate, number) for number in range(PEOPLE))), LONGEST)


def check(crowd, folder, *database):
    """Everything that was acknowledged is there once, nothing else is, and pictures were dealt evenly."""
    study = Study(folder, *database)
    ratings, sessions = study.store.ratings(), study.store.sessions()
    with study.store.database.reading() as connection:
        revisions = connection.exec_driver_sql("SELECT count(*) FROM ratings").scalar()
    study.close()
    there = set(zip(ratings["rater"], ratings["stimulus"], ratings["value"], strict=True))
    assert there == set(crowd.acknowledged.values())
    assert len(ratings) == revisions == len(crowd.acknowledged) == PEOPLE * len(sessions["stimuli"].iloc[0])
    assert len(sessions) == PEOPLE and sorted(sessions["turn"]) == list(range(PEOPLE))
    counts = ratings["stimulus"].value_counts()
    assert len(counts) == 20 * 2 and counts.max() - counts.min() <= 1
    quantiles = statistics.quantiles(crowd.seconds, n=100)
    median, most = quantiles[49], quantiles[98]
    print(
        f"{PEOPLE} people, {AT_ONCE} at once: {len(ratings)} ratings; {len(crowd.seconds)} requests, {crowd.lost} more lost; "
        f"median {median:.3f} s, 99 % {most:.3f} s, longest {max(crowd.seconds):.3f} s"
    )


@pytest.fixture
def folder(memory_folder):
    """20 runs of two pictures, of which each person sees 5: ten pictures."""
    images = [
        Stimulus.blinded("image", picture(2 * run + step), seed=run, iteration=24 * step, surprise=70.0 + step)
        for run in range(20)
        for step in range(2)
    ]
    Study.new(memory_folder / "study", images, Settings("alien", "Ann Other", per_rater=EACH, pairs=0)).close()
    return memory_folder / "study"


def version(folder):
    study = Study(folder)
    study.close()
    return study.version()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_crowd_loses_nothing_and_is_balanced(kind, folder, request):
    database = [] if kind == "sqlite" else [request.getfixturevalue("postgres")]
    words = ["--db", *database] if database else []
    server = Server(folder, *words, "--joins-per-minute", "100000")
    try:
        crowd = Crowd(server, version(folder))
        finished(crowd.rate())
        check(crowd, folder, *database)
        assert crowd.lost == 0
    finally:
        server.stop()


def test_killing_the_server_under_load_loses_nothing_that_was_acknowledged(folder):
    server = Server(folder, "--joins-per-minute", "100000")
    crowd, source = Crowd(server, version(folder)), random.Random(0)

    async def killed():
        loop, rating = asyncio.get_running_loop(), asyncio.create_task(crowd.rate())
        for number in range(KILLS):
            goal = PEOPLE * EACH * (number + 0.5 + source.random() / 2) / (KILLS + 1)
            while len(crowd.acknowledged) < goal and not rating.done():
                await asyncio.sleep(0.02)
            await asyncio.sleep(source.uniform(0, 0.1))
            await loop.run_in_executor(None, server.kill)
            await loop.run_in_executor(None, server.start)
        await rating

    try:
        finished(killed())
        check(crowd, folder)
        assert crowd.lost > 0
    finally:
        server.stop()
