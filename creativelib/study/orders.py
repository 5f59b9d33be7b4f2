"""Who sees what, and in which order (section 7.3, S4.1): whole runs, dealt evenly, in Williams squares.

All of it is a function of the stimuli and of a person's turn 0, 1, 2, ..., so that whoever hands out the turns one by one,
under a lock, has a balanced study.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import gcd

from creativelib.seeds import derive_seed
from creativelib.study.stimuli import Stimulus

CREATIVE_AND_SURPRISING = ("creative", "creative", "creative", "surprising")  # every fourth person says how surprising it is


def williams(n: int, row: int) -> list[int]:
    """Row ``row`` of a Williams design of ``n`` things: an order of 0 to n - 1.

    In ``n`` rows (2 n for an odd n) from a multiple of that on, each thing stands once (twice) in each place and once (twice)
    after
    each other: neither place nor predecessor can favour anything.
    """
    back = n % 2 and row // n % 2
    row %= n
    zigzag = [((k + 1) // 2 if k % 2 else n - k // 2) % n for k in range(n)]  # 0, 1, n - 1, 2, n - 2, ...
    order = [(k + row) % n for k in zigzag]
    return order[::-1] if back else order


def _number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: got {value!r}; give a whole number of at least 0")
    return value


def rating_order(
    stimuli: Sequence[Stimulus], rater: int, *, count: int | None = None, repeats: int = 2, seed: int = 0
) -> list[str]:
    """The order in which rater number ``rater`` (0, 1, ...) sees the ids; an anchor has no place in it.

    A rater sees all pictures of a run or none, because what is tested is a difference within runs. Runs are dealt in turn:
    after any number of raters each was dealt equally often, but for one. Their pictures come in the order of a Williams design,
    in which runs and pictures are shuffled anew for each block of raters. Everybody gets all outsiders, and ``repeats``
    pictures a second time, far from the first, at places of their own.

    Args:
        count: the most pictures that the rater gets, with repeats and outsiders; rounded down to whole runs. All by default.
        repeats: how many of the repeats among the stimuli; fewer where fewer are of the rater's runs.

    Raises:
        ValueError: a rater below 0, no images, a count with no room for one run, or above the number of pictures.
    """
    _number("rater", rater)
    _number("repeats", repeats)
    runs: dict[int | None, list[str]] = {}
    for one in stimuli:
        if one.kind == "image":
            runs.setdefault(one.seed, []).append(one.id)
    if not runs:
        raise ValueError("stimuli: got no image to rate; make some with make_stimuli")
    again = {one.of: one.id for one in stimuli if one.kind == "repeat"}
    outsiders = [one.id for one in stimuli if one.kind == "outsider"]
    sizes = list(accumulate(sorted((len(run) for run in runs.values()), reverse=True)))  # of the k largest runs
    most = max(len(again.keys() & run) for run in runs.values())
    needed = [size + min(repeats, k * most, len(again)) + len(outsiders) for k, size in enumerate(sizes, 1)]
    least, count = sizes[0] + len(outsiders), needed[-1] if count is None else count
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= needed[-1]:
        raise ValueError(
            f"count: got {count!r}; give a whole number from {least} to {needed[-1]} (the least is one run), or None for all"
        )
    order = _images(list(runs.values()), max(1, sum(one <= count for one in needed)), rater, seed)
    repeats = min(repeats, count - len(outsiders) - len(order))
    source = random.Random(derive_seed(seed, "checks", rater))
    originals = [one for one in order if one in again]
    for original in source.sample(originals, min(repeats, len(originals))):
        distance = {place: abs(place - order.index(original)) for place in range(1, len(order) + 1)}
        far = [place for place, steps in distance.items() if steps > len(order) // 4]
        order.insert(source.choice(far or [len(order)]), again[original])
    for outsider in outsiders:
        order.insert(source.randrange(1, len(order) + 1), outsider)
    return order


def _images(runs: list[list[str]], each: int, rater: int, seed: int) -> list[str]:
    """The images of a rater's ``each`` runs, in order.

    A deck is as many raters as use each run equally often, and at least as many as the rows of the design: in a deck the runs
    have one order. So where all see all runs, a deck is one Williams design of the very pictures.
    """
    rows = each * max(len(run) for run in runs)
    rows *= 1 + rows % 2  # an odd design has twice as many
    once = len(runs) // gcd(len(runs), each)
    deck, turn = divmod(rater, once * -(-rows // once))
    random.Random(derive_seed(seed, "runs", deck)).shuffle(runs := list(runs))
    mine = [runs[(turn * each + k) % len(runs)] for k in range(each)]
    images = [one for run in mine for one in run]
    block, row = divmod(rater, rows)
    places = list(range(len(images)))
    random.Random(derive_seed(seed, "places", block)).shuffle(places)
    return [images[places[k]] for k in williams(len(images), row)]


@dataclass(frozen=True)
class Assignment:
    """What a person does: on which scale they rate, which turn it is on that scale, and what they see, in order."""

    scale: str
    number: int
    order: list[str]


def assignment(
    stimuli: Sequence[Stimulus],
    turn: int,
    *,
    scales: Sequence[str] = ("creative",),
    count: int | None = None,
    repeats: int = 2,
    seed: int = 0,
) -> Assignment:
    """The part of who joined as number ``turn`` (0, 1, ...): ``scales`` are dealt in turn, each with a balance of its own.

    Raises:
        ValueError: as ``rating_order``; no scales.
    """
    if not scales:
        raise ValueError("scales: got none; give at least one, for example ('creative',)")
    rounds, place = divmod(_number("turn", turn), len(scales))
    scale = scales[place]
    number = rounds * list(scales).count(scale) + list(scales[:place]).count(scale)
    order = rating_order(
        stimuli, number, count=count, repeats=repeats, seed=derive_seed(seed, scale) if len(scales) > 1 else seed
    )
    return Assignment(scale, number, order)
