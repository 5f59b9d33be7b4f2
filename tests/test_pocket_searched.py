"""What searches draw, near and far: at which distances, of which subject, what is left out; on a search whose pace is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from creativelib.pocket import searched


class Pace:
    """A run that gains ``pace`` nats a step; its samples are their own surprise."""

    def __init__(self, pace):
        self.pace, self.steps, self.stopped = pace, 0, ""

    def run(self, steps, progress):
        self.steps = steps

    def sample(self, seeds):
        return torch.full((len(seeds), 1), 100.0 + self.pace * self.steps)

    def default(self, seeds):
        return torch.full((len(seeds), 1), 100.0)


def trials(pace):
    """As ``Trials``, of a subject whose plain pictures have 100 nats; a picture's colour is its nats."""
    return SimpleNamespace(
        plain_nats=100.0,
        typicality=SimpleNamespace(surprise=lambda embeddings: embeddings[:, 0]),
        begin=lambda seed, nats: Pace(pace),
        draw=lambda embeddings, seeds: (
            np.broadcast_to(embeddings.numpy()[:, :, None, None], (len(seeds), 2, 2, 3)).astype(np.int64),
            None,
        ),
    )


def test_a_search_is_looked_at_where_it_has_come_to_each_distance():
    found = searched.look(trials(pace=2.0), seed=0, steps=500)
    nats = found["nats"].reshape(-1, searched.NOISE_SEEDS)[:, 0].tolist()
    assert nats == [0, 32, 56, 200, 256, 304]  # plain, then the first look, every four steps, at 25, 50, 200, 250, 300 or more
    assert (found["pictures"][:, 0, 0, 0] == 100 + found["nats"]).all()


@pytest.mark.parametrize(("pace", "steps", "expected"), [(2.0, 30, [0, 32, 56]), (60.0, 500, [0, 240, 480])])
def test_a_search_that_ends_soon_or_jumps_gives_no_picture_twice(pace, steps, expected):
    found = searched.look(trials(pace), seed=0, steps=steps)
    assert found["nats"].reshape(-1, searched.NOISE_SEEDS)[:, 0].tolist() == expected


def test_pictures_keep_the_noun_of_their_search_and_what_lies_between_is_left_out(monkeypatch):
    monkeypatch.setattr(searched, "Trials", lambda measured, noun, checker: trials({"pet": 2.0, "fruit": 24.0}[noun]))
    measured = SimpleNamespace(subjects=("pet", "fruit"), kept=lambda name, make: make())
    found = searched.search(measured, runs=2, steps=500)
    rows = zip(found.nouns, found.images, found.far, strict=True)
    once = list(dict.fromkeys((noun, int(image[0, 0, 0]) - 100, bool(far)) for noun, image, far in rows))
    assert once[:6] == [("pet", nats, nats >= 200) for nats in (0, 32, 56, 200, 256, 304)]
    assert once[6:] == [("fruit", 0, False), ("fruit", 288, True), ("fruit", 384, True)]  # at 96 and 192 it is neither
    assert len(searched.search(measured, runs=1, steps=500).nouns) == 6 * searched.NOISE_SEEDS
