"""Best of many: sample, and keep the least probable that the checker still accepts. No optimisation at all."""

import math

import torch
from PIL import Image

from creativelib.generator import Generator
from creativelib.methods.budget import Cost, sample_cost
from creativelib.methods.method import Desk, Method, truth
from creativelib.seeds import derive_seed

BATCH = 500  # samples at once


class Tail(Method):
    """The baseline that the paper lacks: the budget goes into plain samples, and the most surprising are looked at first.

    Args:
        checked: whether the checker must accept a result. Where too few are accepted before the budget ends, those it liked
            best fill up, and ``facts["accepted"]`` says which they are.
    """

    name = "tail"
    paired = False
    description = "many plain samples; the least probable ones that the checker accepts"

    def __init__(self, checked: bool = True):
        self.checked = self.asks = truth("checked", checked)

    @property
    def settings(self) -> dict:
        return {"checked": self.checked}

    def price(self, generator: Generator) -> Cost:
        """Of one sample that is looked at."""
        return sample_cost(generator) + Cost(decodes=1, questions=int(self.checked))

    def search(self, desk: Desk) -> tuple[torch.Tensor, list[Image.Image]]:
        desk.release()
        count = desk.meter.left.fits(sample_cost(desk.generator))
        seeds = [derive_seed(desk.seed, "tail", number) for number in range(count)]
        rows = torch.cat([desk.sample(seeds[start : start + BATCH]) for start in range(0, count, BATCH)]).cpu()
        order = desk.subject.typicality.surprise(rows).argsort(descending=True, stable=True).tolist()
        desk.facts |= {"samples": count}
        if not self.checked:
            order = order[: desk.results]
            return pick(desk, rows, order, desk.decode(rows[order], [seeds[index] for index in order]), seeds)
        chosen = choose(desk, ((rows[index : index + 1], seeds[index], index) for index in order))
        desk.facts["rank_of_last"] = order.index(chosen[-1][3]) + 1
        return pick(desk, rows, [one[3] for one in chosen], [one[1] for one in chosen], seeds)


def pick(desk: Desk, rows: torch.Tensor, order: list[int], images: list[Image.Image], seeds: list[int]):
    """The rows and pictures of ``order``; the noise seeds of the results become those of the samples."""
    desk.noise_seeds = [seeds[index] for index in order]
    return rows[order], images


def choose(desk: Desk, candidates) -> list[tuple[float, Image.Image, torch.Tensor, int]]:
    """Draw and ask about candidates (embedding (1, d), seed, number) in turn until enough are accepted or the budget ends.

    Returns ``desk.results`` of (P(yes), picture, embedding, number): the accepted ones, filled up with those liked best.
    """
    limit, look, seen = desk.subject.limit, Cost(decodes=1, questions=1), []
    for embedding, seed, number in candidates:
        if sum(one[0] >= limit for one in seen) >= desk.results or not desk.affords(look):
            break
        (image,) = desk.decode(embedding, [seed])
        seen.append((desk.check([image])[0], image, embedding, number))
    accepted = [one for one in seen if one[0] >= limit]
    others = sorted((one for one in seen if not one[0] >= limit), key=lambda one: (math.isnan(one[0]), -one[0]))
    chosen = (accepted + others)[: desk.results]
    desk.facts |= {"looked_at": len(seen), "accepted": [one[0] >= limit for one in chosen], "limit": round(limit, 6)}
    desk.results = len(chosen)
    return chosen
