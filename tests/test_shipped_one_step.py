"""The shipped one-step model: of the weights that ship, small, draws what it is asked for, and diffusers loads it whole."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from creativelib import load_one_step
from creativelib.generator import positive_prompt
from creativelib.metrics.pictures import stack
from creativelib.pocket import one_step
from creativelib.pocket.judge import Judge
from creativelib.storage import data_folder

STUDENT = data_folder() / "pocket-one-step"
ONE_STEP = {"num_inference_steps": 1, "guidance_scale": 0, "eta": 1.0, "height": 128, "width": 128}


@pytest.fixture(scope="module")
def model():
    return load_one_step("pocket")


def test_it_is_small_and_its_card_says_what_was_measured():
    facts = json.loads((STUDENT / "one_step.json").read_text())
    assert sum(path.stat().st_size for path in STUDENT.rglob("*") if path.is_file()) < one_step.MOST_MIB * 2**20
    assert (STUDENT / "MODEL_CARD.md").read_text(encoding="utf-8") == one_step.card(facts)
    shares = [one["student"] for one in facts["measured"]["judge"].values()]
    assert np.mean(shares) > 0.6 and facts["measured"]["unexplained"] < 0.4


def test_what_it_draws_is_what_it_was_asked_for(model):
    judge = Judge.load(data_folder() / "pocket" / "judge")
    for subject in ("vehicle", "handbag", "fruit"):
        images = stack(model.draw(model.encode_text(positive_prompt(subject)), list(range(12)))[1])
        assert judge.is_subject(images, subject).mean() >= 0.5  # 88 to 100 % were measured on others
        assert images.reshape(12, -1).std(0).mean() > 10  # another picture from each noise


def test_diffusers_loads_what_it_writes_and_draws_the_same(model, tmp_path):
    model.pipeline.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    again.set_progress_bar_config(disable=True)
    drawn = [
        pipeline(positive_prompt("vehicle"), generator=torch.Generator().manual_seed(3), output_type="np", **ONE_STEP).images
        for pipeline in (model.pipeline, again)
    ]
    assert np.abs(drawn[0] - drawn[1]).max() < 1e-3 and drawn[0].std() > 0.05
