"""Methods: what each costs, what it gives, that a budget holds, and that one seed gives one result; on miniatures."""

import inspect
import json
import re
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from method_checkers import Checker, subject_with
from PIL import ImageStat

from creativelib.generator import load_generator
from creativelib.methods import METHODS, make_method, split_methods
from creativelib.methods.budget import BudgetSpent, Cost, Meter, run_budget, sample_cost
from creativelib.methods.conceptlab import concept_condition
from creativelib.methods.method import Subject
from creativelib.methods.rates import RATES, space_rate
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.pullback import answers_to
from creativelib.spaces import SPACES

MINIATURE = 3 * 2  # prior evaluations of one sample of a miniature: its steps, guided


def brightness(pixels):
    """Stands for a network: the mean of each channel, differentiable."""
    return pixels.mean((2, 3))


@pytest.fixture
def subject(small_generator):
    return subject_with(small_generator, Checker(kinds=("car", "bus")))


@pytest.fixture
def budget(small_generator):
    return run_budget(small_generator, steps=4, results=2)


OPTIONS = {"repel": {"encoder": brightness, "decoder_steps": 1}, "minority": {"iterations": 1}}


def made(name):
    return METHODS[name](**OPTIONS.get(name, {}))


def test_the_unit_of_budgets_by_hand(small_generator):
    assert sample_cost(small_generator, 4) == Cost(prior=4 * MINIATURE)
    assert sample_cost(small_generator, guidance=1.0) == Cost(prior=3)
    # 30 steps with the way back, checks at 25 and at the end on 4 pictures each, 2 results
    expected = Cost(prior=30 * 3 * MINIATURE + 2 * 4 * MINIATURE + 2 * MINIATURE, decodes=2 * 4 + 2, questions=2 * 4)
    assert run_budget(small_generator, 30, results=2) == expected


def test_a_meter_refuses_what_is_not_there_or_set_aside():
    meter = Meter(Cost(prior=10, decodes=2))
    meter.reserved = Cost(decodes=1)
    meter.charge(Cost(prior=10, decodes=1))
    with pytest.raises(BudgetSpent, match="1 decodes"):
        meter.charge(Cost(decodes=1))
    meter.reserved = Cost()
    meter.charge(Cost(decodes=1))
    assert meter.spent == meter.budget and meter.left == Cost()
    assert Cost(prior=10, decodes=3).fits(Cost(prior=4, decodes=1)) == 2 and Cost().fits(Cost(questions=1)) == 0


@pytest.mark.parametrize("name", METHODS)
def test_every_method_gives_the_same_pictures_for_a_seed_within_its_budget(name, small_generator, budget):
    def run(seed):
        subject = subject_with(small_generator, Checker(kinds=("car", "bus")))
        return made(name).run(subject, seed, budget, results=2)

    result, again, other = run(3), run(3), run(4)
    count = len(result.images)
    assert 1 <= count <= 2 and result.embeddings.shape == (count, small_generator.embedding_dim)
    assert torch.isfinite(result.embeddings).all() and len(result.noise_seeds) == count
    assert result.cost <= budget and result.cost.decodes >= count
    assert all(ImageStat.Stat(image).stddev[0] > 0 for image in result.images)
    assert result.provenance["method"] == name and result.provenance["settings"] == made(name).settings
    assert torch.equal(result.embeddings, again.embeddings) and result.provenance == again.provenance
    assert not torch.equal(result.embeddings, other.embeddings)


@pytest.mark.parametrize("name", METHODS)
def test_the_smallest_budget_gives_one_result_and_less_is_refused(name, subject):
    price = made(name).price(subject.generator)
    assert len(made(name).run(subject, 0, price, results=3).images) == 1
    with pytest.raises(ValueError, match=f"^budget: one result of '{name}' costs"):
        made(name).run(subject, 0, price - Cost(decodes=1), results=3)


@pytest.mark.parametrize("name", METHODS)
def test_the_other_family_runs(name, miniature_folders):
    generator = load_generator(miniature_folders["2.1"], device="cpu")
    subject = subject_with(generator, Checker())
    result = made(name).run(subject, 0, run_budget(generator, steps=3, results=1), results=1)
    assert result.embeddings.shape == (1, generator.embedding_dim) and len(result.images) == 1


def test_the_generator_is_as_it_was(subject, budget):
    generator = subject.generator
    before = sample_embeddings(generator, subject.condition, noise_sources([1]))
    for name in METHODS:
        made(name).run(subject, 0, budget, results=1)
    assert torch.equal(before, sample_embeddings(generator, subject.condition, noise_sources([1])))
    assert not any(parameter.requires_grad for parameter in generator.prior.parameters())


def test_methods_that_ask_need_somebody_to_ask(small_generator, budget):
    alone = Subject(small_generator, "vehicle", samples=20, dims=6)
    for name in METHODS:
        if made(name).asks:
            with pytest.raises(ValueError, match=f"^checker: '{name}' asks one"):
                made(name).run(alone, 0, budget)
        else:
            assert made(name).run(alone, 0, budget, results=1).images
    assert alone.preparation == Cost(prior=20 * MINIATURE)


def test_methods_by_name():
    text = "plain, creative[space=subject-token,target=40,checked=false],shell[nats=2.5]"
    names = split_methods(text)
    assert names == ["plain", "creative[space=subject-token,target=40,checked=false]", "shell[nats=2.5]"]
    creative, shell = make_method(names[1]), make_method(names[2])
    assert (creative.space, creative.target, creative.checked, shell.nats) == ("subject-token", 40, False, 2.5)
    assert make_method("negative-prompting[inherit=true]").inherit is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic", "^method: got 'magic'; choose among plain, words"),
        ("creative[space=outer]", "^space: got 'outer'"),
        ("creative[hope=1]", r"^method: got the option 'hope' in 'creative\[hope=1\]'; 'creative' knows space, steps, target"),
        ("plain[hope=1]", "^method: got the option 'hope' in .*; 'plain' knows no options$"),
        ("creative[self=1]", "^method: got the option 'self'"),
        ("creative[steps=1,steps=2]", "^method: got the option 'steps' twice"),
        ("conceptlab[negatives=3]", r"^negatives: got 3; give a word .*example 'car' \(in 'conceptlab\[negatives=3\]'\)$"),
        ("words[words=3]", "^words: got 3; give a word"),
        ("words[words=]", "^words: got ''; give a word"),
        ("creative[clusters=3]", "^clusters: got 3; give objects of NegativeCluster"),
        ("creative[space]", "write options as name=value"),
        ("minority[rate=-1]", "^rate: got -1"),
        ("repel[references=0]", "^references: got 0"),
        ("shell[nats=-1]", "^nats: got -1"),
        ("conceptlab[ask_every=0]", "^ask_every: got 0"),
        ("conceptlab[rate=fast]", "^rate: got 'fast'"),
        ("creative[target=far]", "^target: got 'far'"),
        ("creative[rate=-1]", "^rate: got -1"),
        ("creative[checked=no]", "^checked: got 'no'; give true or false"),
        ("creative[clusters=dull]", "^clusters: got 'dull'"),
        ("tail[checked=no]", "^checked: got 'no'"),
        ("shell[checked=no]", "^checked: got 'no'"),
        ("shell[nats=far]", "^nats: got 'far'"),
        ("negative-prompting[inherit=maybe]", "^inherit: got 'maybe'"),
        ("minority[rate=fast]", "^rate: got 'fast'"),
        ("minority[word=3]", "^word: got 3"),
        ("repel[strength=strong]", "^strength: got 'strong'"),
        ("repel[encoder=lite0]", "^encoder: got 'lite0'"),
    ],
)
def test_a_method_that_cannot_be_made_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        make_method(text)


WRONG = ("3", "-1", "0", "2.5", "true", "none", "dull", "", "nan", "1e999", "1-2", "-", "e")
OBJECTS = (3, -1, 0.5, None, True, "", "dull", b"dull", [], ["car", 3], {}, object(), float("nan"), range(3))


@pytest.mark.parametrize("name", METHODS)
def test_whatever_an_option_gets_is_taken_or_refused_by_its_name(name):
    for option in inspect.signature(METHODS[name]).parameters:
        for value in WRONG:
            taken_or_refused(option, partial(make_method, f"{name}[{option}={value}]"))
        for value in OBJECTS:
            taken_or_refused(option, partial(METHODS[name], **{option: value}))


def taken_or_refused(option, make):
    try:
        assert json.dumps(make().settings)
    except ValueError as error:
        assert re.match(f"{option}: got .*; give |space: got .*; choose ", str(error)) and "\n" not in str(error)


def test_one_word_as_an_option_is_one_word():
    assert make_method("words[words=creative]").words == ["creative"]
    assert make_method("conceptlab[negatives=car]").negatives == ["car"]


class Asked(Checker):
    """Counts the questions that set its threshold too."""

    def calibrated(self, images, subject, *, checks):
        answers_to(self, images, subject)
        return self


def test_the_preparation_counts_every_question(small_generator):
    checker = Asked()
    subject = Subject(small_generator, "vehicle", checker, samples=20, dims=6)
    assert subject.checker is checker and subject.limit > 0
    assert subject.preparation == Cost(prior=20 * MINIATURE, decodes=20, questions=checker.asked)


def test_repulsion_from_more_pictures_than_there_are_is_refused(subject, budget):
    with pytest.raises(ValueError, match="^references: got 21; of 'vehicle' 20 plain pictures are kept"):
        METHODS["repel"](references=21, encoder=brightness, decoder_steps=1).run(subject, 0, budget, results=1)


def test_results_must_be_at_least_one(subject, budget):
    with pytest.raises(ValueError, match="^results: got 0"):
        made("plain").run(subject, 0, budget, results=0)


def test_each_space_has_its_rate_and_the_published_model_the_paper_s(subject, budget):
    assert space_rate(SimpleNamespace(embedding_dim=768), "embedding") == 1.0
    assert set(RATES) == set(SPACES) and RATES["lora"] == 1.0 and min(RATES.values()) > 0
    own = subject.generator.settings.learning_rate * space_rate(subject.generator, "subject-token")
    result = make_method("conceptlab[steps=2]").run(subject, 0, budget, results=1)
    assert result.facts["rate"] == own == subject.generator.settings.learning_rate * RATES["subject-token"]
    runs = [make_method(f"creative[space=subject-token,steps=2{more}]") for more in ("", ",rate=1")]
    rates = [run.run(subject, 0, budget, results=1).facts["rate"] for run in runs]
    assert rates == [RATES["subject-token"], 1]


def test_who_watches_is_told_every_step_and_gets_a_copy(subject, budget):
    seen = {}
    make_method("conceptlab[steps=3]").run(subject, 0, budget, results=1, watch=seen.setdefault)
    assert list(seen) == [0, 1, 2, 3]
    start = subject.generator.word_embedding("vehicle")
    assert torch.equal(seen[0], start) and not torch.equal(seen[3], seen[2])
    condition = concept_condition(subject.generator, seen[0])
    assert condition.text_embedding.shape == (1, subject.generator.embedding_dim)
