"""The rule of S2.4, the sum of Eq. 8, and the yes/no checker on random-weight miniatures of each architecture."""

import numpy as np
import pytest
import torch
from miniature_checkers import BUILDERS
from PIL import Image

from creativelib.pullback import AlternatingRule, SumRule, Verdict, YesNoChecker, anchor_threshold, load_checker

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
    yes, no = (scores[processor.tokenizer(word, add_special_tokens=False).input_ids[0]] for word in ("yes", "no"))
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


def test_calibration_lets_plain_pictures_pass_and_never_gets_stricter(monkeypatch, checker):
    answers = iter([0.2, 0.3, 0.4, 0.9] * 2)
    monkeypatch.setattr(YesNoChecker, "check", lambda self, image, subject: Verdict(True, next(answers)))
    pictures = [IMAGE] * 4
    assert checker.calibrated(pictures, "vehicle", group=1).threshold == pytest.approx(0.2)
    assert checker.calibrated(pictures, "vehicle", share=0.01, group=1).threshold == 0.5
    with pytest.raises(ValueError, match="^images, share, group: got 0 images"):
        checker.calibrated([], "vehicle")
    with pytest.raises(ValueError, match="and 0; give"):
        checker.calibrated(pictures, "vehicle", group=0)


def test_calibration_is_for_the_mean_that_a_check_compares(monkeypatch, checker):
    """Of plain pictures that split into clear and doubted ones, single answers would let everything pass."""
    split = [0.02] * 10 + [0.9] * 22
    answers = iter(split * 2)
    monkeypatch.setattr(YesNoChecker, "check", lambda self, image, subject: Verdict(True, next(answers)))
    single = checker.calibrated([IMAGE] * 32, "vehicle", group=1).threshold
    threshold = checker.calibrated([IMAGE] * 32, "vehicle", group=4).threshold
    assert single == pytest.approx(0.02)
    generator = np.random.default_rng(1)
    means = np.array([generator.choice(split, 4, replace=False).mean() for _ in range(4000)])
    assert 0.2 < threshold < 0.5 and (means >= threshold - 1e-6).mean() > 0.93
