"""One person's part in a rating study: consent, what to rate next, what was given; all of it kept in the store."""

from collections.abc import Sequence

from creativelib.seeds import derive_seed
from creativelib.study.codes import canonical
from creativelib.study.orders import assignment, rating_order
from creativelib.study.schema import CREATIVE
from creativelib.study.seat import Seat
from creativelib.study.stimuli import Stimulus
from creativelib.study.store import Store


class RatingSession(Seat):
    """The plain object behind the rating panel. It holds no ratings: ask the store, and so will whoever starts again.

    Args:
        store: where ratings are kept; the stimuli are added to it. stimuli: of ``make_stimuli`` or ``load_stimuli``.
        per_rater: how many pictures each person rates; all by default. With orders that begin elsewhere for each rater every
            picture still gets nearly the same number of ratings.
        seed: of the orders; one for a study. first: the turn of who joins first; by default it follows from their code, so that
            people with a file of their own each do not all get one order. scales: dealt round; a person rates on one.

    Attributes:
        code: of who rates, ``None`` before ``join``. session: their session in the store. anchor: the stimulus that stands
            for 1, ``None`` where there is none.

    Raises:
        ValueError: nothing to rate, a ``per_rater`` that ``rating_order`` does not take as ``count``, or stimuli that disagree
            with those of the store.
    """

    def __init__(
        self,
        store: Store,
        stimuli: Sequence[Stimulus],
        *,
        per_rater: int | None = None,
        seed: int = 0,
        first: int | None = None,
        scales: Sequence[str] = (CREATIVE,),
    ):
        self.store, self.stimuli, self.seed = store, {one.id: one for one in stimuli}, seed
        self.anchor = next((one for one in stimuli if one.kind == "anchor"), None)
        if not (images := sum(one.kind == "image" for one in stimuli)):
            raise ValueError("stimuli: got no image to rate; make some with make_stimuli")
        self._images, self._first, self.scales, self._count = images, first, tuple(scales), per_rater
        try:
            self.per_rater = len(rating_order(stimuli, 0, count=per_rater))
        except ValueError as error:
            raise ValueError(str(error).replace("count:", "per_rater:")) from None
        store.add_stimuli(one.facts for one in stimuli)

    def begun(self, code: str) -> tuple[int, int] | None:
        """How many of how many pictures of this study the code has rated; ``None`` for a code that has not begun."""
        rater = self.store.known(code)
        mine = rater and self.store.find(rater, self.stimuli)
        return (len(self.store.given(mine)), len(self.store.order(mine))) if mine else None

    def join(self, code: str, *, consent: bool, text: str | None = None) -> None:
        """Rate under this code; who has begun goes on where they were. ``text`` is what they agreed to, kept with them.

        Raises:
            ValueError: a code that is no pseudonym (see ``codes.canonical``), or no consent.
        """
        rater = self.store.rater(code, consent=consent, text=text)
        code = canonical(code)
        # Where several share a store they follow each other, so that numbers of ratings balance.
        first = derive_seed(self.seed, "first rater", code) * self._images if self._first is None else self._first
        self.session = self.deal(rater, first)
        self.code = code

    def deal(self, rater: str, first: int = 0) -> str:
        """The session of a rater (an id of the store's): the one they began, else a new one on the next free turn."""
        return self.store.deal(rater, self.stimuli, self._order, first=first)

    def _order(self, turn: int) -> tuple[str, list[str]]:
        mine = assignment(list(self.stimuli.values()), turn, scales=self.scales, count=self._count, seed=self.seed)
        return mine.scale, mine.order

    @property
    def order(self) -> list[str]:
        """Ids in the order in which they are shown."""
        return self.store.order(self._joined())

    @property
    def given(self) -> dict[str, int]:
        """Current ratings, 0 to 5, by id, in that order."""
        return self.store.given(self._joined())

    @property
    def current(self) -> Stimulus | None:
        """The stimulus to rate now; ``None`` when all are rated."""
        found = self.store.next(self._joined())
        return None if found is None else self.stimuli[found]

    @property
    def progress(self) -> tuple[int, int]:
        """How many of how many are rated."""
        return len(self.given), len(self.order)

    def rate(self, value: int, stimulus: str | None = None, milliseconds: int | None = None) -> bool:
        """Rate the current stimulus; on disk when this returns. Returns whether anything was written.

        Args:
            stimulus: the id that was seen. A second answer for what is no longer current (a double click) is not taken.

        Raises:
            ValueError: a value off the scale, all is rated, nobody has joined.
        """
        current = self.current
        if current is None:
            raise ValueError("stimulus: all pictures are rated; undo takes the last rating back")
        if stimulus is not None and stimulus != current.id:
            return False
        return self.store.rate(self._joined(), current.id, value, milliseconds)

    def undo(self) -> str | None:
        """Take back the last rating; returns its stimulus's id, ``None`` if there is none."""
        return self.store.undo(self._joined())
