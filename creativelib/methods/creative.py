"""The paper's method: a creative run in a conceptual space, with anchor, checker and clusters."""

from collections.abc import Sequence

import torch

from creativelib.arguments import finite_number, whole_number
from creativelib.directions import NegativeCluster
from creativelib.methods.budget import CHECK_EVERY, Cost, sample_cost
from creativelib.methods.method import Desk, Method, truth
from creativelib.methods.rates import space_rate
from creativelib.pullback import CHECK_IMAGES
from creativelib.run import CreativeRun
from creativelib.spaces import SPACES, make_space


class Creative(Method):
    """Section 5 of the paper, for as many steps as the budget pays.

    A step in the embedding itself does not ask the prior; it is charged like the others, so that a budget means as many steps
    in every space.

    Args:
        space: one of ``spaces.SPACES``.
        steps: at most so many; ``None`` for as many as can be paid.
        target: nats above the expected surprise at which it stops; ``None`` for the paper's search without end.
        checked: whether the checker is asked.
        rate: of learning, in units of the family's; by default the space's own (``rates.space_rate``).
        clusters: what to keep away from (section 5.4).
    """

    name = "creative"
    description = "the paper's search"

    def __init__(
        self,
        space: str = "lora",
        steps: int | None = None,
        target: float | None = None,
        checked: bool = True,
        rate: float | None = None,
        clusters: Sequence[NegativeCluster] = (),
    ):
        if not isinstance(space, str) or space not in SPACES:
            raise ValueError(f"space: got {space!r}; choose one of {', '.join(map(repr, SPACES))}")
        if not isinstance(clusters, Sequence) or not all(isinstance(cluster, NegativeCluster) for cluster in clusters):
            raise ValueError(f"clusters: got {clusters!r}; give objects of NegativeCluster")
        self.space, self.steps = space, None if steps is None else whole_number("steps", steps, 1)
        self.target = None if target is None else finite_number("target", target)
        self.rate = None if rate is None else finite_number("rate", rate, above=0)
        self.checked = self.asks = truth("checked", checked)
        self.clusters = tuple(clusters)

    @property
    def settings(self) -> dict:
        names = ("space", "steps", "target", "checked", "rate")
        return {name: getattr(self, name) for name in names} | {"clusters": [cluster.settings for cluster in self.clusters]}

    def search(self, desk: Desk) -> tuple[torch.Tensor, None]:
        generator, subject = desk.generator, desk.subject
        expected = subject.typicality.expected_surprise()
        rate = space_rate(generator, self.space) if self.rate is None else self.rate
        run = CreativeRun(
            generator,
            subject.words,
            make_space(self.space, generator, subject.words, desk.seed),
            subject.typicality,
            checker=subject.checker if self.checked else None,
            clusters=self.clusters,
            seed=desk.seed,
            learning_rate=generator.settings.learning_rate * rate,
            check_every=CHECK_EVERY,
            target=None if self.target is None else expected + self.target,
        )
        step = sample_cost(generator, backward=True)
        looks = Cost(decodes=CHECK_IMAGES, questions=CHECK_IMAGES) + sample_cost(generator, CHECK_IMAGES)
        check = looks if self.checked else Cost()
        # A step is only begun if the check that must follow it, now or at the end, can be paid as well.
        while not run.stopped and (self.steps is None or run.steps < self.steps) and desk.affords(step + check):
            desk.meter.charge(step)
            if run.step()["check"] is not None:
                desk.meter.charge(check)
        if self.checked and run.steps and run.history[-1]["check"] is None:
            desk.meter.charge(check)
            run.check()
        desk.facts |= {
            "steps": run.steps,
            "rate": rate,
            "result_step": run.result_step,
            "stopped": run.stopped or ("steps" if run.steps == self.steps else "budget"),
            "surprise": [round(row["surprise"], 4) for row in run.history],
            "expected_surprise": round(expected, 4),
        }
        run.keep_snapshot()
        desk.release()
        desk.meter.charge(sample_cost(generator, desk.results))
        return run.sample(desk.noise_seeds), None
