"""What tests of runs have in common: fixtures that make a quick one, and when two stand where the other stands."""

import pytest
import torch

from creativelib.generator import positive_prompt
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule, Verdict
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel


class Checker:
    """Gives these answers, one a check, and the last one for ever."""

    threshold = 0.5

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def check(self, image, subject):
        self.asked += 1
        probability = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Verdict(probability >= self.threshold, probability)


@pytest.fixture(scope="module")
def typicality(small_generator):
    baseline = sample_prior(small_generator, positive_prompt("vehicle"), n=150, progress=False)
    return TypicalityModel.fit(baseline.embeddings, dims=6, provenance=baseline.provenance)


@pytest.fixture
def make(small_generator, typicality):
    """Makes a run of vehicles; ``space`` and all options may be given."""

    def build(space="lora", **options):
        options = {"rule": SumRule(0.0), "learning_rate": 1e-3, "check_images": 1, **options}
        return CreativeRun(small_generator, "vehicle", make_space(space, small_generator, "vehicle"), typicality, **options)

    return build


def without_times(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


def alike(one, other):
    """Two runs stand where the other stands, bit for bit."""
    first, second = one.space.state_dict(), other.space.state_dict()
    return without_times(one.history) == without_times(other.history) and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )
