"""The rule of each method, by hand: what it keeps, where it goes, what it minimises."""

import numpy as np
import pytest
import torch
from method_checkers import Checker, subject_with

from creativelib.generator import positive_prompt
from creativelib.methods import METHODS
from creativelib.methods.asking import ask, clean
from creativelib.methods.budget import Cost, run_budget, sample_cost
from creativelib.methods.conceptlab import TEMPLATES, class_embedding, conceptlab_loss
from creativelib.methods.denoising import denoise, guided
from creativelib.methods.minority import minority_metric
from creativelib.methods.negative_prompting import fitting
from creativelib.methods.repel import draw, repelled
from creativelib.methods.shell import shell_point
from creativelib.prior_sampling import CachedPrior, noise_sources, sample_embeddings
from creativelib.pullback import load_checker

# --- what is kept -----------------------------------------------------------------------------------------------------


def test_tail_keeps_the_least_probable_that_are_accepted(small_generator):
    subject = subject_with(small_generator, Checker(every=3))
    budget = Cost(prior=50 * 6, decodes=20, questions=20)
    result = METHODS["tail"]().run(subject, 0, budget, results=2)
    surprises = subject.typicality.surprise(result.embeddings)
    everything = subject.typicality.surprise(
        sample_embeddings(small_generator, subject.condition, noise_sources(seeds_of_tail(50)))
    ).sort(descending=True)[0]
    # the checker says yes to the third and the sixth: third and sixth from the top
    assert surprises.tolist() == pytest.approx([float(everything[2]), float(everything[5])], rel=1e-4)
    assert result.facts["samples"] == 50 and result.facts["looked_at"] == 6 and result.facts["rank_of_last"] == 6
    assert result.cost == Cost(prior=300, decodes=6, questions=6) and result.facts["accepted"] == [True, True]


def seeds_of_tail(count):
    from creativelib.seeds import derive_seed

    return [derive_seed(0, "tail", number) for number in range(count)]


def test_tail_fills_up_when_nothing_is_accepted(small_generator):
    subject = subject_with(small_generator, Checker(every=1000))
    result = METHODS["tail"]().run(subject, 0, Cost(prior=60, decodes=5, questions=5), results=2)
    assert result.facts["accepted"] == [False, False] and result.cost == Cost(prior=60, decodes=5, questions=5)
    unchecked = METHODS["tail"](checked=False).run(subject, 0, Cost(prior=60, decodes=2), results=2)
    surprises = subject.typicality.surprise(unchecked.embeddings)
    assert surprises[0] >= surprises[1] and unchecked.cost == Cost(prior=60, decodes=2)


def test_a_shell_has_the_distance_that_was_chosen(small_generator):
    typicality = subject_with(small_generator, None).typicality
    points = torch.cat([shell_point(typicality, 12.0, seed) for seed in range(5)])
    assert typicality.surprise(points).tolist() == pytest.approx(5 * [typicality.expected_surprise() + 12], abs=1e-3)
    assert torch.pdist(points).min() > 0 and typicality.residual_energy(points).max() < 1e-6


def test_words_are_put_before_the_subject(small_generator):
    result = METHODS["words"]().run(subject_with(small_generator, None), 0, run_budget(small_generator, 1, 4), results=4)
    prompts = result.facts["prompts"]
    assert prompts[0] == positive_prompt("vehicle").replace("a vehicle", "a creative vehicle")
    assert "of an unusual vehicle." in prompts[1] and "a never seen before vehicle" in prompts[2] and prompts[3] == prompts[0]


# --- creative ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["lora", "subject-token", "embedding"])
def test_a_creative_run_takes_the_steps_that_are_paid(small_generator, space):
    subject = subject_with(small_generator, Checker())
    budget = run_budget(small_generator, steps=30, results=2)
    result = METHODS["creative"](space).run(subject, 0, budget, results=2)
    assert result.facts["steps"] == 30 and result.facts["stopped"] == "budget" and result.cost == budget
    few = METHODS["creative"](space, steps=3).run(subject, 0, budget, results=2)
    assert few.facts["steps"] == 3 and few.facts["stopped"] == "steps"
    assert few.cost == 3 * sample_cost(small_generator, backward=True) + Cost(prior=4 * 6 + 2 * 6, decodes=6, questions=4)


def test_a_run_that_the_checker_ends_keeps_what_was_accepted(small_generator):
    subject = subject_with(small_generator, Checker(every=10**6))
    result = METHODS["creative"]().run(subject, 0, run_budget(small_generator, 40, 1), results=1)
    assert result.facts["stopped"] == "checker" and result.facts["steps"] == 25 and result.facts["result_step"] == 0


# --- ConceptLab -------------------------------------------------------------------------------------------------------


def test_the_loss_of_conceptlab_by_hand():
    positive, negative = torch.tensor([0.10]), torch.tensor([0.30, 0.10])
    # mean of (0.30, floored 0.20) is 0.25, the largest 0.30: half of 0.55; and 1 - 0.10
    assert float(conceptlab_loss(positive, negative)) == pytest.approx(0.275 + 0.90)
    assert float(conceptlab_loss(torch.tensor([0.5]), negative[:0])) == pytest.approx(1 - 0.28)  # capped, no negatives yet
    assert float(conceptlab_loss(torch.tensor([0.1, 0.2]), negative[:0])) == pytest.approx(0.85)  # weights 1 / count
    flat = torch.tensor([0.4], requires_grad=True), torch.tensor([0.1], requires_grad=True)
    conceptlab_loss(*flat).backward()
    assert flat[0].grad == 0 and flat[1].grad == 0  # beyond cap and floor nothing pulls


def test_half_of_the_templates_are_photographs():
    assert len(TEMPLATES) == 18 and sum("photo of" in one for one in TEMPLATES) == 10  # nine, and the close-up


def test_conceptlab_asks_before_the_first_step_and_every_so_often(small_generator):
    checker = Checker(kinds=("a Taxi.", "bus", "bus"))
    subject = subject_with(small_generator, checker)
    result = METHODS["conceptlab"](steps=10, ask_every=5).run(subject, 0, run_budget(small_generator, 60, 1), results=1)
    assert checker.questions == 3 * ["What kind of vehicle is in this photo?"]
    assert result.facts["negatives"] == ["taxi", "bus", "bus"] and result.facts["asked_at"] == [0, 5, 10]
    assert result.facts["steps"] == 10 and len(result.facts["loss"]) == 10
    looks = 3 * (sample_cost(small_generator) + Cost(decodes=1, questions=1))
    steps = 10 * sample_cost(small_generator, backward=True)
    assert result.cost == looks + steps + sample_cost(small_generator) + Cost(decodes=1)
    known = METHODS["conceptlab"](steps=2, negatives=["car"]).run(subject, 0, run_budget(small_generator, 60, 1), results=1)
    assert known.facts["negatives"] == ["car"] and known.facts["asked_at"] == []


def test_conceptlab_moves_away_from_its_negatives(small_generator):
    subject = subject_with(small_generator, Checker(kinds=("fruit",)))
    bounds = {"cap": -1.0, "floor": -1.0}  # nothing is attracted, nothing held
    ends = {}
    for rate in (1e-9, 0.03):  # the same templates and noises
        run = METHODS["conceptlab"](steps=40, rate=rate, **bounds).run(
            subject, 0, run_budget(small_generator, 60, 1), results=1
        )
        ends[rate] = sum(run.facts["loss"][-10:]) / 10
    assert ends[0.03] < ends[1e-9] - 0.005


def test_bounds_are_the_published_ones_or_those_of_plain_pictures(small_generator):
    subject = subject_with(small_generator, Checker())
    cap, floor = METHODS["conceptlab"]().bounds(subject)
    plain = torch.nn.functional.cosine_similarity(subject.baseline.embeddings, subject.condition.text_embedding)
    assert cap == pytest.approx(float(plain.mean())) and floor != cap
    assert METHODS["conceptlab"](cap=0.3, floor=0.1).bounds(subject) == (0.3, 0.1)


def test_classes_are_read_by_the_text_encoder_of_the_decoder_where_it_has_one(generator):
    row = class_embedding(generator, "a photo of a vehicle")
    assert row.shape == (1, generator.embedding_dim) and torch.isfinite(row).all()
    own = torch.equal(row, generator.encode_text("a photo of a vehicle").text_embedding)
    assert own == generator.name.endswith("2.2")


# --- sampling with a step in between ----------------------------------------------------------------------------------


def test_denoising_by_hand_is_the_prior(generator):
    with torch.no_grad():
        condition = generator.encode_text(positive_prompt("vehicle"))
        prior = CachedPrior(generator.prior, [generator.unconditional, condition])
        mine = denoise(generator, 7, lambda latents, time, following: guided(generator, prior, latents, time))
        theirs = sample_embeddings(generator, condition, noise_sources([7]))
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_what_is_seen_becomes_the_negative_prompt(small_generator):
    checker = Checker(kinds=("car", "bus", "car"))
    subject = subject_with(small_generator, checker)
    budget = Cost(prior=12, decodes=6, questions=4)
    result = METHODS["negative-prompting"]().run(subject, 0, budget, results=2)
    # three steps: a look after the first and the second, the answer to the third would come too late
    assert result.facts == {"negatives": [["car", "bus"], ["car"]], "looks": 2}
    assert result.cost == Cost(prior=12, decodes=6, questions=4)
    plain = METHODS["plain"]().run(subject, 0, budget, results=2)
    assert not torch.allclose(result.embeddings, plain.embeddings, atol=1e-4)
    silent = METHODS["negative-prompting"]().run(subject_with(small_generator, Checker(kinds=("",))), 0, budget, results=2)
    assert torch.allclose(silent.embeddings, plain.embeddings, atol=1e-5)  # nothing seen, nothing avoided
    inherited = METHODS["negative-prompting"](inherit=True).run(subject, 0, budget, results=2).facts["negatives"]
    assert inherited[1][: len(inherited[0])] == inherited[0]


def test_a_negative_prompt_that_is_too_long_loses_its_oldest_words(small_generator):
    many = ["photo of a vehicle"] * 8 + ["fruit"]
    kept = fitting(small_generator, many)
    assert kept.endswith("fruit") and 1 < len(kept.split(", ")) < 9
    small_generator.encode_text(kept)


def test_the_metric_of_minority_by_hand():
    clean, again = torch.tensor([[3.0, 4.0]], requires_grad=True), torch.tensor([[0.0, 0.0]], requires_grad=True)
    metric = minority_metric(clean, again, weight=2.0)
    assert float(metric.detach()) == pytest.approx(5 + 2 * 5)
    metric.backward()
    assert clean.grad.tolist()[0] == pytest.approx([2 * 0.6, 2 * 0.8])  # through the second distance alone
    assert again.grad.tolist()[0] == pytest.approx([-0.6, -0.8])  # through the first alone


def test_minority_raises_its_metric(small_generator):
    subject = subject_with(small_generator, None)
    means = {}
    for rate in (1e-9, 0.03):  # the same noises
        method = METHODS["minority"](iterations=20, rate=rate)
        result = method.run(subject, 0, method.price(small_generator), results=1)
        (metrics,) = result.facts["metric"]
        means[rate] = sum(metrics[10:20]) / 10
    assert means[0.03] > means[1e-9] * 1.05
    assert len(metrics) == 2 * 20  # three steps, the last of which is not tuned
    assert result.cost == Cost(prior=6 + 2 * 3 * 20 * 2, decodes=1)


def test_a_push_has_the_length_that_was_chosen():
    pushed = repelled(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 7.0]]), 0.2)
    assert pushed.tolist()[0] == pytest.approx([3.0, 4.0 - 0.2 * 5.0])
    assert repelled(torch.ones(1, 2), torch.zeros(1, 2), 0.2).tolist() == [[1, 1]]


def test_drawing_with_gradient_is_the_decoder(generator):
    embeddings = sample_embeddings(generator, generator.unconditional, noise_sources([1, 2])).detach().requires_grad_()
    pixels = draw(generator, embeddings, [5, 6], generator.settings.decoder_steps)
    (gradient,) = torch.autograd.grad(pixels.square().mean(), embeddings)
    assert gradient.abs().sum(1).min() > 0
    pictures = generator.decode(embeddings, seed=[5, 6])
    for tensor, picture in zip(pixels.detach(), pictures, strict=True):
        drawn = ((tensor.clamp(-1, 1) + 1) / 2 * 255).permute(1, 2, 0)
        known = torch.from_numpy(np.array(picture)).float()
        assert (drawn - known).abs().max() <= 1


def mean_colour(pixels):
    return pixels.mean((2, 3))


def test_repulsion_leaves_the_references(small_generator):
    subject = subject_with(small_generator, None)
    method = METHODS["repel"](strength=0.02, references=2, decoder_steps=2, encoder=mean_colour)
    clean = torch.randn(1, small_generator.embedding_dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    known = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    cosines = []
    for _ in range(4):
        moved, cosine = method.push(small_generator, clean, clean, 3, known)
        clean = moved.requires_grad_()
        cosines.append(cosine)
    assert cosines == sorted(cosines, reverse=True) and cosines[-1] < cosines[0]
    result = method.run(subject, 0, 2 * method.price(small_generator), results=2)
    assert result.cost == 2 * method.price(small_generator) and len(result.facts["nearest_cosine"][0]) == 2
    plain = METHODS["plain"]().run(subject, 0, run_budget(small_generator, 1, 2), results=2)
    method = METHODS["repel"](strength=0.0, references=2, decoder_steps=2, encoder=mean_colour)
    still = method.run(subject, 0, 2 * method.price(small_generator), results=2)
    assert torch.allclose(still.embeddings, plain.embeddings, atol=1e-5)


# --- questions --------------------------------------------------------------------------------------------------------


def test_a_question_is_answered_in_words(checker_folder, small_generator):
    checker = load_checker(checker_folder, device="cpu")
    (image,) = small_generator.decode(torch.zeros(1, small_generator.embedding_dim))
    answer = ask(checker, image, "What kind of vehicle is in this photo?")
    assert isinstance(answer, str) and answer == ask(checker, image, "What kind of vehicle is in this photo?")


@pytest.mark.parametrize(
    ("said", "kind"), [(" A red  Taxi.\n", "red taxi"), ("an aeroplane", "aeroplane"), ("ant", "ant"), ("", "")]
)
def test_an_answer_becomes_a_class(said, kind):
    assert clean(said) == kind
