"""On an NVIDIA card: ``pytest -m gpu``, ten minutes at most on one of 12 GB. Left out where there is none.

``CREATIVELIB_BENCH_OUT`` names a folder for the figures of the bench, to be kept as an artifact.
"""

import gc
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import let_noise_matter
from safetensors.torch import load_file

from bench import full
from creativelib.full_size import FAMILIES, FullSize, checker_model, configuration
from creativelib.generator import load_generator, positive_prompt
from creativelib.memory import GIB
from creativelib.pocket import decoder, space, worlds
from creativelib.prior_sampling import noise_sources, sample_embeddings, sample_prior
from creativelib.pullback import SumRule, load_checker
from creativelib.run import CreativeRun
from creativelib.search import versions
from creativelib.spaces import SPACES, make_space
from creativelib.typicality import TypicalityModel

pytestmark = pytest.mark.gpu
PROMPT, CUDA = positive_prompt("vehicle"), torch.device("cuda")
PEAK = 10.5  # GiB that a card of 12 GB has for search, checks and decodes


@pytest.fixture(scope="module")
def card():
    return load_generator("pocket", device="cuda")


@pytest.fixture(scope="module")
def here():
    """The same generator on the CPU."""
    return load_generator("pocket", device="cpu")


@pytest.fixture(scope="module")
def typicality(here):
    baseline = sample_prior(here, PROMPT, n=300, progress=False)
    return TypicalityModel.fit(baseline.embeddings, provenance=baseline.provenance)


@pytest.fixture
def exact(monkeypatch):
    """No TF32, whoever asks for it: every generator that is loaded does."""
    before, choose = torch.get_float32_matmul_precision(), torch.set_float32_matmul_precision
    choose("highest")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda precision: None)
    yield
    assert torch.get_float32_matmul_precision() == "highest"
    choose(before)


def keep(name: str, figures: dict) -> None:
    """Beside the figures of the bench, where those are kept."""
    if folder := os.environ.get("CREATIVELIB_BENCH_OUT"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, name).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


@pytest.fixture
def emptied():
    """Nothing of earlier tests in the card's memory; its peak is counted from here."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def test_each_part_is_on_the_card_in_its_own_dtype(card):
    pipeline = card.decoder_pipeline
    assert next(card.prior.parameters()).device.type == "cuda" and card.prior.dtype == torch.float32
    assert pipeline.unet.dtype == card.image_encoder.dtype == torch.float16 and pipeline.unet.device.type == "cuda"
    assert card.sampling_dtype in (torch.bfloat16, torch.float32)


def test_pictures_are_those_of_the_cpu(card, here):
    with torch.no_grad():
        rows = sample_embeddings(here, here.encode_text(PROMPT), noise_sources([1, 2, 3, 4]))
    pictures = [one.decode(rows, seed=3) for one in (card, here)]
    drawn, expected = (np.stack([np.asarray(image, float) for image in some]) for some in pictures)
    assert np.abs(drawn - expected).mean() < 8  # of 255, in half precision
    seen = [one.encode_images(some).cpu() for one, some in zip((card, here), pictures, strict=True)]
    assert float(torch.nn.functional.cosine_similarity(*seen).min()) > 0.95


def test_samples_are_those_of_diffusers(card, exact, monkeypatch):
    monkeypatch.setattr(card, "sampling_dtype", torch.float32)
    with torch.no_grad():
        found = sample_embeddings(card, card.encode_text(PROMPT), noise_sources([1, 2, 3]))
    expected = card.prior_pipeline(
        PROMPT,
        num_images_per_prompt=3,
        num_inference_steps=card.settings.prior_steps,
        guidance_scale=card.settings.prior_guidance,
        generator=noise_sources([1, 2, 3]),
    ).image_embeds
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_half_precision_changes_little(card, here, typicality):
    found, expected = (sample_prior(one, PROMPT, n=100, progress=False).embeddings for one in (card, here))
    assert (found - expected).norm() < 0.02 * expected.norm()
    surprises = [typicality.surprise(rows) for rows in (found, expected)]
    assert float((surprises[0] - surprises[1]).abs().mean()) < 0.2 * float(surprises[1].std())


@pytest.mark.parametrize("space", SPACES)
def test_a_step_is_that_of_the_cpu(space, card, here, typicality):
    rows = []
    for generator in (card, here):
        searched = make_space(space, generator, "vehicle")
        run = CreativeRun(generator, "vehicle", searched, typicality, rule=SumRule(), seed=1)
        before = searched.state_dict()
        rows.append(run.step())
        after = searched.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
    assert rows[0]["surprise"] == pytest.approx(rows[1]["surprise"], rel=0.05)
    assert rows[0]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=0.1)


def test_a_check_is_that_of_the_cpu(card, here):
    with torch.no_grad():
        rows = sample_embeddings(here, here.encode_text(PROMPT), noise_sources([1, 2, 3, 4]))
    pictures = here.decode(rows, seed=1)
    on_card, on_cpu = load_checker(device="cuda"), load_checker(device="cpu")
    assert on_card.settings["dtype"] == "float16"  # as the shipped checkpoint says
    for picture in pictures:
        assert on_card.check(picture, "vehicle").probability == pytest.approx(
            on_cpu.check(picture, "vehicle").probability, abs=0.05
        )


def test_a_run_of_the_card_opens_on_the_cpu(card, here, typicality, tmp_path):
    checker = load_checker(threshold=0.01, memory=card.memory)
    space = make_space("lora", card, "vehicle")
    run = CreativeRun(card, "vehicle", space, typicality, rule=SumRule(), checker=checker, check_every=2)
    run.run(4, progress=False, folder=tmp_path)
    assert all(math.isfinite(row["check"]) for row in run.history[1::2])
    with pytest.warns(UserWarning, match="numbers may differ by float noise"):
        again = CreativeRun.load(tmp_path, generator=here)
    assert again.steps == 4
    torch.testing.assert_close(again.sample([5]), run.sample([5]).cpu(), rtol=0.05, atol=0.05)


def test_the_decoder_trains_on_the_card_and_goes_on(tmp_path, monkeypatch):
    random = torch.Generator().manual_seed(0)
    latents, embeddings = torch.randn(64, 8, 16, 16, generator=random).half(), torch.randn(64, space.DIM, generator=random)
    records = [{"nouns": ["vehicle"]}] * 64
    both = worlds.Worlds([], np.array([0, 64]), records, torch.ones(64, dtype=torch.bool), torch.ones(64) / 64)
    monkeypatch.setitem(decoder.BATCH, "cuda", 16)
    for steps in (2, 4):  # the second time from the checkpoint
        model = decoder.train(both, latents, embeddings, torch.zeros(1, space.DIM), tmp_path, "cuda", steps)
    assert all(parameter.is_cuda and bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert int(load_file(tmp_path / "checkpoints/decoder.safetensors")["step"]) == 4


# --- at the published sizes, with random weights ----------------------------------------------------------------------


def test_at_full_size_ours_is_diffusers(exact, emptied):
    generator = FullSize("kandinsky-2.1", CUDA, torch.float16)
    let_noise_matter(generator.prior)
    generator.sampling_dtype = torch.float32
    with torch.no_grad():
        found = sample_embeddings(generator, generator.encode_text(PROMPT), noise_sources(range(4)))
    expected = generator.prior_pipeline(
        PROMPT, num_images_per_prompt=4, num_inference_steps=5, guidance_scale=4.0, generator=noise_sources(range(4))
    ).image_embeds
    assert (expected[0] - expected[1]).abs().mean() > 0.1  # the samples differ, so equality says something
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_with_checks_stays_within_a_card_of_12_gb(family, emptied):
    """Search, decode and a checker of Janus' size; by the ledger, and by what PyTorch allocated."""
    generator = FullSize(family, CUDA, torch.float16, memory="12GB")
    typicality = TypicalityModel.fit(torch.randn(200, generator.embedding_dim), dims=50, provenance={"prompt": PROMPT})
    run = CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), typicality, rule=SumRule())
    facts = configuration("janus-pro-1b")
    checker = checker_model("janus-pro-1b")
    generator.memory.guest_when_called("checker", checker)
    side = facts["vision_config"]["image_size"]
    asked = {"input_ids": torch.tensor([[facts["image_token_id"]] * facts["vision_config"]["num_image_tokens"] + [1] * 32])}
    asked["pixel_values"] = torch.zeros(1, 3, side, side, dtype=torch.bfloat16)
    for _ in range(2):
        run.step()
        pictures = generator.decode(run.sample([1, 2, 3, 4]), steps=2)
        assert len(pictures) == 4
        with torch.no_grad():
            logits = checker(**{name: tensor.to(CUDA) for name, tensor in asked.items()}).logits
        assert bool(logits[0, -1].isfinite().all())
    found = {"ledger": generator.memory.most / GIB, "allocated": torch.cuda.max_memory_allocated() / GIB}
    facts = {"device": torch.cuda.get_device_name(), "memory": "12GB", "gib": {key: round(found[key], 2) for key in found}}
    keep(f"memory-{family}.json", facts | {"versions": versions()})
    assert generator.memory.most <= generator.memory.limit
    assert found["allocated"] <= PEAK, str(generator.memory)


def test_the_figures_of_the_bench_are_kept(emptied, tmp_path):
    out = os.environ.get("CREATIVELIB_BENCH_OUT") or tmp_path
    full.main(["--family", "kandinsky-2.1", "--samples", "200", "--parts", "prior", "steps", "check", "--out", str(out)])
    (written,) = list(os.scandir(out)) if out is tmp_path else [max(os.scandir(out), key=lambda entry: entry.stat().st_mtime)]
    facts = json.loads(open(written.path, encoding="utf-8").read())
    own, plain = (timing["seconds"] for timing in facts["timings"][:2])
    assert facts["device"] == torch.cuda.get_device_name() and plain > 5 * own
