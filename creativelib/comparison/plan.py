"""What is compared: cells of method, subject, seed and budget; and the questions that were asked beforehand."""

import hashlib
import re
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from creativelib.generator import Generator
from creativelib.methods import make_method
from creativelib.methods.budget import run_budget
from creativelib.storage import data_folder

SUBJECTS = ("vehicle", "building", "chair", "handbag", "pet", "fruit", "alien")  # of Fig. 5 and of Figs. 15 to 20
METHODS = ("plain", "words", "tail", "shell", "creative", "conceptlab", "negative-prompting", "minority", "repel")
MEASURES = (
    "novelty", "structure", "colour", "outside", "judge", "checker", "whole", "sharpness", "novel_and_valid", "surprise",
    "structure_change", "colour_distance", "vendi",
)  # fmt: skip
EXPLORED = (
    "explored_distance",
    "explored_new",
    "explored_distance_structure",
    "explored_new_structure",
)  # not asked beforehand
SHARES = ("outside", "judge", "checker", "whole", "novel_and_valid", *EXPLORED[1::2])  # of pictures: none below 0 or above 1
SAYS = ("more", "less", "open")


@dataclass(frozen=True, order=True)
class Cell:
    """One method with its options, for one subject and seed; ``budget`` in steps of a creative run that costs as much."""

    method: str
    subject: str
    seed: int
    budget: int

    @property
    def file(self) -> str:
        """A name for its file: readable, and different for different cells."""
        text = f"{self.method} {self.budget} {self.subject} {self.seed}"
        return f"{re.sub('[^a-z0-9]+', '-', text.lower())}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Settings:
    """What holds for all cells.

    Attributes:
        model: as ``load_generator`` takes it. checker: as ``load_checker`` takes it. device: of both.
        results: pictures a cell. samples: of the baseline, 5,000 in the paper. dims: of the typicality model.
        plain: pictures that novelty is measured against.
    """

    model: str = "pocket"
    checker: str = "pocket"
    device: str = "cpu"
    results: int = 4
    samples: int = 5000
    dims: int = 50
    plain: int = 1000

    def __post_init__(self):
        for name, least in (("results", 1), ("samples", self.dims + 1), ("plain", 20)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; give a whole number of at least {least}")
        if self.plain > self.samples:
            raise ValueError(f"plain: got {self.plain} pictures of {self.samples} samples; give at most as many")

    @property
    def facts(self) -> dict:
        """What a result depends on, as JSON values: all but the device."""
        return {name: value for name, value in asdict(self).items() if name != "device"}


@dataclass(frozen=True)
class Hypothesis:
    """``a`` against ``b`` in ``measure``; see the file for what each field means."""

    id: str
    source: str
    a: str
    b: str
    budget: int
    measure: str
    says: str
    budget_b: int | None = None

    def __post_init__(self):
        make_method(self.a), make_method(self.b)  # refuses what is no method
        if self.measure not in MEASURES or self.says not in SAYS:
            raise ValueError(
                f"hypothesis {self.id!r}: got the measure {self.measure!r} and says {self.says!r}; choose the measure among "
                f"{', '.join(MEASURES)}, and what it says among {', '.join(SAYS)}"
            )

    @property
    def sides(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Method and budget of either side."""
        return (self.a, self.budget), (self.b, self.budget_b or self.budget)


def hypotheses(path: str | Path | None = None) -> list[Hypothesis]:
    """The questions of a file, by default those that were committed before the comparison was run.

    Raises:
        OSError: no such file. ValueError: it says something that is not understood.
    """
    path = data_folder() / "comparison" / "hypotheses.toml" if path is None else Path(path)
    try:
        asked = tomllib.loads(path.read_text(encoding="utf-8")).get("hypothesis", [])
        return [Hypothesis(**one) for one in asked]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ValueError(f"hypotheses: {path} is not understood ({error})") from error


def stated_sides(asked: Iterable[Hypothesis]) -> list[tuple[str, int]]:
    """The methods and budgets that answer the questions, each once."""
    return list(dict.fromkeys(side for hypothesis in asked for side in hypothesis.sides))


def grid(sides: Iterable[tuple[str, int]], subjects: Iterable[str], seeds: Iterable[int]) -> list[Cell]:
    """Every method and budget with every subject and seed, each once, seed by seed: an unfinished grid is an even one."""
    subjects, sides, seeds = (list(dict.fromkeys(part)) for part in (subjects, sides, seeds))
    return [Cell(method, subject, seed, budget) for seed in seeds for subject in subjects for method, budget in sides]


def require_affordable(cells: Iterable[Cell], generator: Generator, settings: Settings) -> None:
    """Refuse, before hours are spent, a budget that does not pay for one result of a method.

    Raises:
        ValueError: names the method and what it needs.
    """
    for method, steps in dict.fromkeys((cell.method, cell.budget) for cell in cells):
        budget, price = run_budget(generator, steps, settings.results), make_method(method).price(generator)
        if not budget.fits(price):
            raise ValueError(f"budget: one result of {method!r} costs {price}; a budget of {steps} steps is {budget}")
