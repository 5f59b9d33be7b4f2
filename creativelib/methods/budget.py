"""What a method may spend, counted in three currencies that hold on any machine: prior evaluations, decodes, questions."""

from dataclasses import asdict, dataclass

from creativelib.generator import Generator
from creativelib.pullback import CHECK_IMAGES

BACKWARD = 3  # an evaluation that gradients flow back through: itself, and about two more for the way back
CHECK_EVERY = 25  # steps of a creative run between checks (section 6 of the paper)


class BudgetSpent(Exception):
    """A charge that the budget does not cover; nothing of it was spent."""


@dataclass(frozen=True)
class Cost:
    """What was, or may be, spent.

    Attributes:
        prior: evaluations of the prior: one sample, one step, one condition. A guided step of one sample is two. One that
            gradients flow through counts ``BACKWARD``.
        decodes: pictures drawn by the decoder; one that gradients flow through counts ``BACKWARD``.
        questions: put to the checker about one picture.
    """

    prior: int = 0
    decodes: int = 0
    questions: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.prior + other.prior, self.decodes + other.decodes, self.questions + other.questions)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.prior - other.prior, self.decodes - other.decodes, self.questions - other.questions)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.prior * times, self.decodes * times, self.questions * times)

    __rmul__ = __mul__

    def __le__(self, other: "Cost") -> bool:
        return self.prior <= other.prior and self.decodes <= other.decodes and self.questions <= other.questions

    def __str__(self) -> str:
        return f"{self.prior} prior evaluations, {self.decodes} decodes, {self.questions} questions"

    def fits(self, one: "Cost") -> int:
        """How many times ``one`` can be paid from this; at least one of its parts must cost something."""
        pairs = zip(asdict(self).values(), asdict(one).values(), strict=True)
        return max(0, min(have // price for have, price in pairs if price))


def sample_cost(generator: Generator, samples: int = 1, *, backward: bool = False, guidance: float | None = None) -> Cost:
    """Of sampling the prior ``samples`` times with the family's steps, with or without the way back."""
    guidance = generator.settings.prior_guidance if guidance is None else guidance
    conditions = 2 if guidance > 1 else 1
    return Cost(prior=samples * generator.settings.prior_steps * conditions * (BACKWARD if backward else 1))


def run_budget(generator: Generator, steps: int, results: int = 4) -> Cost:
    """What a creative run of ``steps`` steps costs with its checks, and ``results`` pictures of its end.

    The unit in which budgets are named: every method is given this much of each currency, whatever it makes of it. The
    baseline samples of a subject (and the plain pictures that set the checker's threshold) are made once, serve every run, and
    are counted apart: ``Subject.preparation``.

    Raises:
        ValueError: less than one step or result.
    """
    for name, value in (("steps", steps), ("results", results)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}; give a whole number of at least 1")
    checks = -(-steps // CHECK_EVERY)
    check = sample_cost(generator, CHECK_IMAGES) + Cost(decodes=CHECK_IMAGES, questions=CHECK_IMAGES)
    ends = results * (sample_cost(generator) + Cost(decodes=1))
    return steps * sample_cost(generator, backward=True) + checks * check + ends


class Meter:
    """Keeps account. Part of the budget can be set aside, for the pictures that a method has to deliver at its end."""

    def __init__(self, budget: Cost):
        self.budget, self.spent, self.reserved = budget, Cost(), Cost()

    @property
    def left(self) -> Cost:
        """What may still be spent, without what is set aside."""
        return self.budget - self.spent - self.reserved

    def affords(self, cost: Cost) -> bool:
        return cost <= self.left

    def charge(self, cost: Cost) -> None:
        """Pay, before the work is done.

        Raises:
            BudgetSpent: more than is left.
        """
        if not self.affords(cost):
            raise BudgetSpent(f"{cost} asked for, {self.left} left of {self.budget}")
        self.spent = self.spent + cost
