"""Which of these is more creative? Pictures of two methods side by side, three of each (section 7.4.2, Fig. 7).

Needs no torch: the pictures come from a comparison, or from anywhere.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.special import expit

from creativelib.seeds import derive_seed
from creativelib.study.codes import canonical
from creativelib.study.schema import CREATIVE
from creativelib.study.seat import Seat
from creativelib.study.stimuli import Stimulus
from creativelib.study.store import Store

SHOWN = 3  # pictures of a method at once, as in the paper
TILE, GAP = 128, 8  # pixels


@dataclass(frozen=True)
class PictureSet:
    """Pictures of one method as one stimulus, and what a rater must not see of it.

    Attributes:
        trial: which of several sets of the method for the subject, for example its seed.
    """

    stimulus: Stimulus
    method: str
    subject: str
    trial: int


def picture_set(pictures: Sequence[Image.Image], method: str, subject: str, trial: int) -> PictureSet:
    """``SHOWN`` pictures side by side, under an id that says nothing.

    Raises:
        ValueError: another number of pictures.
    """
    if len(pictures) != SHOWN:
        raise ValueError(f"pictures: got {len(pictures)} of {method!r} for {subject!r}; give {SHOWN}")
    page = Image.new("RGB", (SHOWN * TILE + (SHOWN - 1) * GAP, TILE), "white")
    for number, picture in enumerate(pictures):
        page.paste(ImageOps.pad(picture.convert("RGB"), (TILE, TILE), color="white"), (number * (TILE + GAP), 0))
    return PictureSet(Stimulus.blinded("image", page, seed=trial), method, subject, trial)


class PairedSession(Seat):
    """The plain object behind the paired panel. It holds no choices: ask the store, and so will whoever starts again.

    Everybody sees one pair for each subject: whose trial it is goes round, sides are balanced within a person (as many left as
    right, but for one) and from each person to the next (every pair is shown either way round), and subjects are shuffled.

    Args:
        store: where choices are kept; the stimuli are added to it.
        sets: of both ``methods`` for every subject and trial. methods: the two that are compared.
        seed: of orders and sides; one for a study.

    Attributes:
        code: of who chooses, ``None`` before ``join``. session: their session in the store.

    Raises:
        ValueError: a subject and trial without a set of either method, sets that are equal, not two methods.
    """

    def __init__(self, store: Store, sets: Sequence[PictureSet], methods: tuple[str, str], *, seed: int = 0):
        if len(set(methods)) != 2:
            raise ValueError(f"methods: got {methods}; give two different ones")
        chosen = [one for one in sets if one.method in methods]
        self.methods, self.seed, self.store = tuple(methods), seed, store
        self.sets = {one.stimulus.id: one for one in chosen}
        if len(self.sets) < len(chosen):
            raise ValueError("sets: two of them show the same pictures; give each once")
        self._pairs: dict[str, dict[int, dict[str, PictureSet]]] = {}
        for one in chosen:
            self._pairs.setdefault(one.subject, {}).setdefault(one.trial, {})[one.method] = one
        lacking = [
            (subject, trial) for subject, trials in self._pairs.items() for trial, both in trials.items() if len(both) < 2
        ]
        if not self._pairs or lacking:
            where = f", such as {lacking[0][0]!r}, trial {lacking[0][1]}" if lacking else ""
            raise ValueError(f"sets: {len(lacking) or 'all'} trials lack one of {methods}{where}; give sets of both methods")
        self.subjects = list(self._pairs)
        store.add_stimuli(one.stimulus.facts for one in chosen)

    def order(self, turn: int) -> list[tuple[str, str]]:
        """The pairs (left, right) of ids that the person of this turn sees."""
        source = random.Random(derive_seed(self.seed, "paired sides", turn // 2))
        subjects = source.sample(self.subjects, len(self.subjects))
        sides = [number % 2 for number in range(len(subjects))]
        source.shuffle(sides)
        pairs = []
        for subject, side in zip(subjects, sides, strict=True):
            trials = self._pairs[subject]
            both = trials[sorted(trials)[(turn // 2) % len(trials)]]
            ids = [both[method].stimulus.id for method in self.methods]
            pairs.append(tuple(ids if (side + turn) % 2 else ids[::-1]))
        random.Random(derive_seed(self.seed, "paired order", turn)).shuffle(pairs)
        return pairs

    def join(self, code: str, *, consent: bool, text: str | None = None) -> None:
        """Choose under this code; who has begun goes on where they were. ``text`` is what they agreed to.

        Raises:
            ValueError: a code that is no pseudonym (see ``codes.canonical``), or no consent.
        """
        rater = self.store.rater(code, consent=consent, text=text)
        self.session = self.store.deal(rater, self.sets, self._assign)
        self.code = canonical(code)

    def _assign(self, turn: int) -> tuple[str, list[str]]:
        return CREATIVE, [name for pair in self.order(turn) for name in pair]

    def begun(self, code: str) -> tuple[int, int] | None:
        """How many of how many pairs the code has chosen from; ``None`` for a code that has not begun."""
        rater = self.store.known(code)
        mine = rater and self.store.find(rater, self.sets)
        return self._progress(mine) if mine else None

    @property
    def current(self) -> tuple[PictureSet, PictureSet] | None:
        """What is to be chosen from now, left and right; ``None`` when all is done."""
        view = self.store.view(self._joined())
        names = view["order"]
        for pair in zip(names[::2], names[1::2], strict=True):
            if pair not in view["chosen"]:
                return self.sets[pair[0]], self.sets[pair[1]]
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """How many of how many pairs are done."""
        return self._progress(self._joined())

    def _progress(self, session: str) -> tuple[int, int]:
        view = self.store.view(session)
        return len(view["chosen"]), len(view["order"]) // 2

    def choose(self, side: str, left: str | None = None) -> bool:
        """Choose "left" or "right" of the current pair; on disk when this returns. Returns whether anything was written.

        Args:
            left: the id that was seen on the left. A second answer for what is no longer current is not taken.

        Raises:
            ValueError: another side, all is done, nobody has joined.
        """
        current = self.current
        if current is None:
            raise ValueError("side: all pairs are done")
        if left is not None and left != current[0].stimulus.id:
            return False
        return self.store.choose(self._joined(), *(one.stimulus.id for one in current), side)

    def choices(self) -> pd.DataFrame:
        """What was chosen in this study: rater, subject, trial, left and right (methods), chosen ("left" or "right")."""
        rows = self.store.choices()
        rows = rows[rows["left"].isin(list(self.sets)) & rows["right"].isin(list(self.sets))].reset_index(drop=True)
        left, right = ([self.sets[name] for name in rows[side]] for side in ("left", "right"))
        return pd.DataFrame(
            {
                "rater": rows["rater"],
                "subject": [one.subject for one in left],
                "trial": [one.trial for one in left],
                "left": [one.method for one in left],
                "right": [one.method for one in right],
                "chosen": rows["chosen"],
            }
        )


def simulate(session: PairedSession, felt: Mapping[str, float], people: int, *, seed: int = 0, noise: float = 0.5) -> None:
    """Let people who do not exist choose, through the same session as real ones; their codes begin with "simulated".

    Each picks a side with the probability sigmoid(difference of what is felt / ``noise``). Who has chosen already is not asked
    again.

    Args:
        felt: rating points by id of a set, the same for all but for the noise.

    Raises:
        ValueError: a set of which nothing is felt, no noise.
    """
    if missing := set(session.sets) - set(felt):
        raise ValueError(f"felt: lacks {len(missing)} sets, such as {min(missing)!r}; give points for each")
    if not noise > 0:
        raise ValueError(f"noise: got {noise!r}; give rating points above 0")
    for number in range(people):
        source = np.random.default_rng([seed, number])
        session.join(f"simulated {number + 1:03d}", consent=True)
        while (pair := session.current) is not None:
            ahead = felt[pair[0].stimulus.id] - felt[pair[1].stimulus.id]
            session.choose("left" if source.random() < expit(ahead / noise) else "right")
    session.leave()
