"""The rule of S2.4, the sum of Eq. 8, and the yes/no checker on random-weight miniatures of each architecture."""

import re

import numpy as np
import pytest
import torch
from miniature_checkers import BUILDERS
from PIL import Image

from creativelib.pullback import AlternatingRule, SumRule, Verdict, YesNoChecker, anchor_threshold, load_checker, run_threshold

IMAGE = Image.effect_noise((48, 32), 60)


def test_alternating_rule_holds_the_seed_above_the_threshold():
    rule, creative = AlternatingRule(0.25), torch.tensor(-40.0)
    below, at, above = (rule(creative, torch.tensor(value)) for value in (0.2, 0.25, 0.3))
    assert (float(below.loss), below.kind, below.hold) == (-40.0, "creative", False)
    assert (at.kind, at.hold) == ("creative", False)
    assert (float(above.loss), above.kind, above.hold) == (pytest.approx(0.3), "anchor", True)


def test_sum_rule_is_equation_8_without_clusters():
    decision = SumRule(2.0)(torch.tensor(-40.0), torch.tensor(0.5))
    assert (float(decision.loss), decision.kind, decision.hold) == (-39.0, "sum", False)


@pytest.mark.parametrize("number", ["1", None, [1.0], True, float("nan"), 1e31])
def test_a_rule_takes_a_number(number):
    for kind, name in ((SumRule, "weight"), (AlternatingRule, "threshold")):
        with pytest.raises(ValueError, match=rf"^{name}: got {re.escape(repr(number))}; give a finite number"):
            kind(number)
    assert SumRule(np.float32(0.5)) == SumRule(0.5) and type(AlternatingRule(torch.tensor(1)).threshold) is float


def test_threshold_is_a_quantile_of_the_baseline():
    text = torch.tensor([[1.0, 0.0]])
    angles = torch.linspace(0, 1, 101)
    baseline = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert anchor_threshold(baseline, text, quantile=0.5) == pytest.approx(1 - torch.tensor(0.5).cos().item(), abs=1e-6)


@pytest.fixture(scope="module", params=BUILDERS)
def checker(request, tmp_path_factory):
    return load_checker(BUILDERS[request.param](tmp_path_factory.mktemp(request.param)), device="cpu")


def test_checker_reads_the_logits_at_the_first_new_token(checker):
    """Against the plain library path: generate one token with scores, compare yes and no."""
    processor, model = checker.processor, checker.model
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is this still an alien? Yes or No."}]}
    ]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = processor(images=[IMAGE.convert("RGB")], text=[prompt], return_tensors="pt")
    mode = {"generation_mode": "text"} if model.config.model_type == "janus" else {}
    scores = model.generate(
        **inputs, **mode, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True, pad_token_id=0
    ).scores[0][0]
    end = "</w>" if "yes</w>" in (known := processor.tokenizer.get_vocab()) else ""
    forms = {word: [mark + form + end for mark in ("", "▁", "Ġ") for form in (word, word.capitalize(), word.upper())]
             for word in ("yes", "no")}  # fmt: skip
    yes, no = (scores[[known[form] for form in forms[word] if form in known]].logsumexp(0) for word in ("yes", "no"))
    verdict = checker.check(IMAGE, "alien")
    assert verdict.probability == pytest.approx(float((yes - no).sigmoid()), abs=1e-5)
    assert verdict.yes == (verdict.probability >= 0.5)


def test_checker_looks_at_image_and_subject(checker):
    answers = {
        checker.check(image, subject).probability
        for image in (IMAGE, Image.new("RGB", (32, 32), "red"))
        for subject in ("alien", "vehicle")
    }
    assert len(answers) == 4


def test_threshold_decides(checker):
    probability = checker.check(IMAGE, "alien").probability
    for threshold, expected in ((probability - 1e-4, True), (probability + 1e-4, False)):
        assert YesNoChecker(checker.model, checker.processor, threshold=threshold).check(IMAGE, "alien").yes is expected
    with pytest.raises(ValueError, match="^threshold: got 1"):
        YesNoChecker(checker.model, checker.processor, threshold=1)


def test_checker_without_chat_template(checker_folder):
    checker = load_checker(checker_folder, device="cpu")
    checker.processor.chat_template = None
    assert 0 < checker.check(IMAGE, "alien").probability < 1


def test_missing_checker_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="^checker: nobody/nothing is not on this machine, and the hub is not asked"):
        load_checker("nobody/nothing")
    monkeypatch.setenv("CREATIVELIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make pocket"):
        load_checker("pocket")


class Answers:
    """Stands in for ``YesNoChecker.check``: gives these probabilities one after the other, again and again."""

    def __init__(self, monkeypatch, probabilities):
        self.probabilities, self.asked = list(probabilities), 0
        monkeypatch.setattr(YesNoChecker, "check", self.check)

    def check(self, image, subject):
        self.asked += 1
        return Verdict(True, self.probabilities[(self.asked - 1) % len(self.probabilities)])


def test_calibration_never_gets_stricter(monkeypatch, checker):
    Answers(monkeypatch, [0.7, 0.8, 0.9])
    assert checker.calibrated([IMAGE] * 33, "vehicle").threshold == 0.5
    Answers(monkeypatch, [0.2, 0.3, 0.4, 0.9])
    assert checker.calibrated([IMAGE] * 32, "vehicle", group=1, checks=1).threshold == pytest.approx(0.2)
    assert checker.calibrated([IMAGE] * 32, "vehicle", share=0.01, group=1, checks=1).threshold == 0.5


def survivors(answers, threshold, checks, group=4, runs=2000):
    """Share of runs of an unchanged model that pass all checks."""
    drawn = np.random.default_rng(1).choice(answers, (runs, checks, group))
    return float((drawn.mean(2).min(1) >= threshold).mean())


@pytest.mark.parametrize("checks", [1, 8, 40])
def test_the_threshold_is_for_a_run_and_not_for_a_check(checks):
    """Answers as the shipped checker gives them to plain aliens: a fifth of them doubted, one in twenty refused."""
    source = np.random.default_rng(0)
    plain = np.concatenate([source.uniform(0.02, 0.2, 250), source.uniform(0.2, 0.5, 750), source.uniform(0.5, 0.95, 4000)])
    shares = [
        survivors(plain, run_threshold(torch.from_numpy(source.choice(plain, 64)), checks=checks), checks) for _ in range(12)
    ]
    assert 0.92 < np.mean(shares) < 0.985 and min(shares) > 0.7
    for_one = run_threshold(torch.from_numpy(source.choice(plain, 64)), checks=1)
    assert checks < 40 or survivors(plain, for_one, 40) < 0.5


def test_calibration_takes_enough_pictures_and_answers_that_are_numbers(monkeypatch, checker):
    Answers(monkeypatch, [0.6])
    with pytest.warns(UserWarning, match="^images: a threshold from 16 pictures is not sure; give 64"):
        checker.calibrated([IMAGE] * 16, "vehicle")
    with pytest.raises(ValueError, match="^images, share: got 0 images"):
        checker.calibrated([], "vehicle")
    for name in ("group", "checks"):
        with pytest.raises(ValueError, match=f"^{name}: got 0; give a whole number of at least 1"):
            checker.calibrated([IMAGE] * 32, "vehicle", **{name: 0})
    Answers(monkeypatch, [0.6, float("nan")])
    with pytest.raises(ValueError, match="^images: the checker answers 16 of 32 plain pictures with no number"):
        checker.calibrated([IMAGE] * 32, "vehicle")


def test_a_checker_says_which_it_is(checker_folder, monkeypatch):
    one, other = load_checker(checker_folder, device="cpu"), load_checker(checker_folder, device="cpu", threshold=0.4)
    assert one.settings["weights"].startswith("sha256:") and one.settings["name"] == checker_folder.name
    assert one.settings | {"threshold": 0.4} == other.settings
    Answers(monkeypatch, [0.3])
    calibrated = one.calibrated([IMAGE] * 32, "vehicle")
    assert calibrated.settings == one.settings | {"threshold": pytest.approx(0.3)}
