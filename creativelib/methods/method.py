"""What all methods have in common: their materials, a desk at which every use is paid for, a result with its provenance."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from creativelib.arguments import plain_words
from creativelib.generator import Generator, TextCondition, positive_prompt
from creativelib.methods.asking import ask
from creativelib.methods.budget import Cost, Meter, sample_cost
from creativelib.prior_sampling import PriorSamples, noise_sources, sample_embeddings, sample_prior
from creativelib.pullback import CHECKS, answers_to
from creativelib.seeds import derive_seed
from creativelib.typicality import TypicalityModel

ACCEPTED = 0.95  # share of plain pictures that a single question must let pass
Watch = Callable[[int, torch.Tensor], None]
CALIBRATION = 64  # plain pictures that are asked about for it


class Subject:
    """What is made once for a subject and serves every method: baseline, typicality model, checker's threshold.

    Args:
        generator, words, checker: whose, of what, and who is asked (``None`` for nobody).
        samples: of the baseline distribution, 5,000 in the paper. dims: of the typicality model, 50 in the paper.
    """

    def __init__(self, generator: Generator, words: str, checker=None, *, samples: int = 5000, dims: int = 50, seed: int = 0):
        self.generator, self.words, self._checker = generator, words, checker
        self.prompt, self.samples, self.dims, self.seed = positive_prompt(words), samples, dims, seed

    @cached_property
    def condition(self) -> TextCondition:
        """Of P_pos."""
        with torch.no_grad():
            return self.generator.encode_text(self.prompt)

    @cached_property
    def baseline(self) -> PriorSamples:
        return sample_prior(self.generator, self.prompt, n=self.samples, seed=self.seed, progress=False)

    @cached_property
    def typicality(self) -> TypicalityModel:
        baseline = self.baseline
        return TypicalityModel.fit(baseline.embeddings, dims=self.dims, provenance=baseline.provenance)

    @cached_property
    def cosines(self) -> tuple[float, float]:
        """Mean cosine of plain embeddings to the text embedding of P_pos, and to that of the empty prompt."""
        texts = (self.condition.text_embedding, self.generator.unconditional.text_embedding)
        rows = self.baseline.embeddings
        own, empty = (float(torch.nn.functional.cosine_similarity(rows, text.cpu()).mean()) for text in texts)
        return own, empty

    @cached_property
    def plain_pictures(self) -> list[Image.Image]:
        """``CALIBRATION`` of them; fewer where the baseline is smaller."""
        return self.generator.decode(self.baseline.embeddings[:CALIBRATION], prompt=self.prompt, seed=self.seed)

    @cached_property
    def checker(self):
        """The checker with the threshold for a run's checks that suits the subject; ``None`` without one."""
        if self._checker is None:
            return None
        return self._checker.calibrated(self.plain_pictures, self.words, checks=CHECKS)  # one threshold for every budget

    @cached_property
    def limit(self) -> float:
        """P(yes) from which on a single picture counts as accepted: ``ACCEPTED`` of the plain ones do.

        Raises:
            ValueError: there is no checker.
        """
        if self._checker is None:
            raise ValueError("checker: this method asks one; give a checker, for example load_checker('pocket')")
        answers = answers_to(self._checker, self.plain_pictures, self.words)
        return min(self._checker.threshold, float(np.quantile(answers, 1 - ACCEPTED)))

    @property
    def preparation(self) -> Cost:
        """What the baseline and both thresholds (a run's, a single picture's) cost, once a subject; no budget contains it."""
        pictures = min(CALIBRATION, self.samples) if self._checker is not None else 0
        return sample_cost(self.generator, self.samples) + Cost(decodes=pictures, questions=2 * pictures)


def truth(name: str, value) -> bool:
    """``value`` if it is true or false.

    Raises:
        ValueError: a word or a number, of which any would count as true.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}; give true or false")
    return value


def word_list(name: str, value, example: str) -> list[str]:
    """``value`` as a list of words: one text, or any number of them; may be empty.

    Raises:
        ValueError: something that is no text; names the argument, what came, and gives ``example``.
    """
    values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    return [plain_words(name, one, example) for one in values]


@dataclass
class Result:
    """What a method delivers, and how.

    Attributes:
        method, subject, seed, settings: what would make it again, on the same weights.
        embeddings: (n, d), on the CPU. images: n pictures of them. noise_seeds: of sample and decoder, one a picture.
        cost: what was spent of the budget. facts: what happened, as JSON values (steps done, negatives found, ...).
    """

    method: str
    subject: str
    seed: int
    settings: dict
    embeddings: torch.Tensor
    images: list[Image.Image]
    noise_seeds: list[int]
    cost: Cost
    budget: Cost
    facts: dict = field(default_factory=dict)

    @property
    def provenance(self) -> dict:
        """Everything but the arrays, as JSON values."""
        return {
            "method": self.method,
            "subject": self.subject,
            "seed": self.seed,
            "settings": self.settings,
            "noise_seeds": self.noise_seeds,
            "cost": asdict(self.cost),
            "budget": asdict(self.budget),
            "facts": self.facts,
        }


class Desk:
    """Where a method works: generator and checker behind a meter. Made by ``Method.run``.

    Attributes:
        subject: a ``Subject``. seed: of the whole run. results: how many pictures to deliver, and what was set aside for them.
        meter: the account. facts: what the method notes of its course.
    """

    def __init__(self, subject: Subject, seed: int, budget: Cost, results: int, watch: Watch | None = None):
        self.subject, self.generator, self.seed, self.results = subject, subject.generator, seed, results
        self.meter, self.facts, self._watch = Meter(budget), {}, watch

    @cached_property
    def noise_seeds(self) -> list[int]:
        """Of the pictures that are delivered: the same for every method, so that each can be held beside its default."""
        return [derive_seed(self.seed, "result", number) for number in range(self.results)]

    def show(self, steps: int, token: torch.Tensor) -> None:
        """Tell who watches how far the search is; they get a copy of the token."""
        if self._watch is not None:
            self._watch(steps, token.detach().clone())

    def affords(self, cost: Cost) -> bool:
        """Whether ``cost`` can be paid without what is set aside."""
        return self.meter.affords(cost)

    def release(self) -> None:
        """What was set aside for the results may be spent from now on."""
        self.meter.reserved = Cost()

    @torch.no_grad()
    def sample(self, seeds: list[int], condition: TextCondition | None = None) -> torch.Tensor:
        """Embeddings (N, d) of P_pos or of another condition."""
        self.meter.charge(sample_cost(self.generator, len(seeds)))
        return sample_embeddings(self.generator, condition or self.subject.condition, noise_sources(seeds))

    def decode(self, embeddings: torch.Tensor, seeds: list[int]) -> list[Image.Image]:
        """Pictures of embeddings (N, d), of P_pos where the decoder is told it."""
        self.meter.charge(Cost(decodes=len(embeddings)))
        return self.generator.decode(embeddings, prompt=self.subject.prompt, seed=seeds)

    def check(self, images: list[Image.Image]) -> list[float]:
        """P(yes) of each picture."""
        self.meter.charge(Cost(questions=len(images)))
        return [self.subject._checker.check(image, self.subject.words).probability for image in images]

    def ask(self, image: Image.Image, question: str) -> str:
        """The checker's answer in its own words."""
        self.meter.charge(Cost(questions=1))
        return ask(self.subject._checker, image, question)


class Method:
    """Anything that answers "a creative picture of X" under a budget.

    A subclass sets ``name``, ``asks`` (whether it cannot work without a checker), its options in ``__init__``, and ``search``.
    """

    name = ""
    asks = False
    paired = True  # results start in the noise of ``desk.noise_seeds``, so each has a default picture to be held beside
    description = ""

    @property
    def settings(self) -> dict:
        """The options, as JSON values."""
        return dict(vars(self))

    def price(self, generator: Generator) -> Cost:
        """The least that one result costs."""
        return sample_cost(generator) + Cost(decodes=1)

    def search(self, desk: Desk) -> tuple[torch.Tensor, list[Image.Image] | None]:
        """Embeddings (desk.results, d) of the results, and their pictures where they are drawn already.

        The ``price`` of each result is set aside until it calls ``desk.release()``.
        """
        raise NotImplementedError

    def run(self, subject: Subject, seed: int, budget: Cost, results: int = 4, *, watch: Watch | None = None) -> Result:
        """Work until the budget is spent or the method has what it wants.

        Fewer results are given where the budget does not pay for so many.

        Args:
            watch: told by methods that tune a token, at the start and after every step: steps done, and the token as it is.

        Raises:
            ValueError: the budget does not pay for one result, or the method needs a checker and there is none.
        """
        if isinstance(results, bool) or not isinstance(results, int) or results < 1:
            raise ValueError(f"results: got {results!r}; give a whole number of at least 1")
        price = self.price(subject.generator)
        possible = budget.fits(price)
        if not possible:
            raise ValueError(f"budget: one result of {self.name!r} costs {price}, got {budget}; give a larger budget")
        if self.asks and subject._checker is None:
            raise ValueError(f"checker: {self.name!r} asks one; give a checker, for example load_checker('pocket')")
        desk = Desk(subject, int(seed), budget, min(results, possible), watch)
        desk.meter.reserved = desk.results * price
        embeddings, images = self.search(desk)
        desk.release()
        if images is None:
            images = desk.decode(embeddings, desk.noise_seeds)
        return Result(
            self.name, subject.words, desk.seed, self.settings, embeddings.detach().float().cpu(), images, desk.noise_seeds,
            desk.meter.spent, budget, desk.facts,
        )  # fmt: skip
