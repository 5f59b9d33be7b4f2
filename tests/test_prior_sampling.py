"""The prior sampler equals diffusers' pipelines, is differentiable, and its samples remember where they come from."""

import numpy as np
import pytest
import torch

from creativelib.generator import positive_prompt
from creativelib.prior_sampling import (
    CachedPrior,
    PriorSamples,
    derive_seed,
    noise_sources,
    sample_embeddings,
    sample_prior,
)

PROMPT = positive_prompt("vehicle")


@pytest.mark.parametrize("guidance", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("steps", [2, 5])
def test_equals_the_pipeline_of_diffusers(generator, guidance, steps):
    expected = generator.prior_pipeline(
        PROMPT, num_images_per_prompt=3, num_inference_steps=steps, guidance_scale=guidance, generator=noise_sources([1, 2, 3])
    ).image_embeds
    embeddings = sample_embeddings(
        generator, generator.encode_text(PROMPT), noise_sources([1, 2, 3]), steps=steps, guidance=guidance
    )
    assert expected.std(0).mean() > 0.003  # far above the tolerance: the miniature does not answer a constant
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-4)


def test_cached_prior_equals_the_plain_model_for_prompts_of_any_length(generator):
    conditions = [generator.encode_text(prompt) for prompt in ("", "a vehicle", PROMPT)]
    noisy = torch.randn(2, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    predicted = CachedPrior(generator.prior, conditions)(noisy, 499)
    for condition, row in zip(conditions, predicted, strict=True):
        expected = generator.prior(
            noisy,
            timestep=499,
            proj_embedding=condition.text_embedding.expand(2, -1),
            encoder_hidden_states=condition.hidden_states.expand(2, -1, -1),
            attention_mask=condition.mask.expand(2, -1),
        ).predicted_image_embedding
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


def test_each_sample_can_have_its_own_timestep(generator):
    conditions = [generator.encode_text(prompt) for prompt in ("a vehicle", PROMPT)]
    noisy = torch.randn(2, 3, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    times = torch.tensor([[0, 250, 999], [7, 499, 750]])
    cached = CachedPrior(generator.prior, conditions)
    found = cached.each(noisy, times)
    for c, row in enumerate(times.tolist()):
        for n, timestep in enumerate(row):
            torch.testing.assert_close(found[c, n], cached(noisy[c, n : n + 1], timestep)[c, 0], rtol=1e-4, atol=1e-5)
    assert (found - cached.each(noisy, times.flip(1))).abs().max() > 1e-3  # the timestep matters


def test_gradient_equals_that_of_the_plain_model(generator):
    condition = generator.encode_text(PROMPT)
    noisy = torch.randn(2, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    text = condition.hidden_states.clone().requires_grad_()
    plain = generator.prior(
        noisy, 499, condition.text_embedding.expand(2, -1), text.expand(2, -1, -1), condition.mask.expand(2, -1)
    )
    (expected,) = torch.autograd.grad(plain.predicted_image_embedding.square().sum(), text)
    cached = CachedPrior(generator.prior, [type(condition)(condition.text_embedding, text, condition.mask)])
    (found,) = torch.autograd.grad(cached(noisy, 499).square().sum(), text)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_gradient_flows_through_all_steps(generator):
    condition = generator.encode_text(PROMPT)
    condition.text_embedding.requires_grad_()
    sample_embeddings(generator, condition, noise_sources([1]), steps=5, guidance=2.0).sum().backward()
    assert condition.text_embedding.grad.abs().sum() > 0


def test_samples_do_not_depend_on_batch_size_or_n(small_generator):
    small = sample_prior(small_generator, PROMPT, n=5, batch_size=2, progress=False)
    large = sample_prior(small_generator, PROMPT, n=8, batch_size=8, progress=False)
    torch.testing.assert_close(small.embeddings, large.embeddings[:5], rtol=1e-4, atol=1e-5)
    assert small.embeddings.shape == (5, small_generator.embedding_dim) and not small.embeddings.requires_grad
    other = sample_prior(small_generator, PROMPT, n=5, seed=1, progress=False)
    assert (small.embeddings - other.embeddings).abs().amax(1).min() > 1e-2


def test_global_random_state_is_left_alone(small_generator):
    before = torch.get_rng_state()
    sample_prior(small_generator, PROMPT, n=2, progress=False)
    assert torch.equal(before, torch.get_rng_state())


def test_save_and_load_refuse_other_provenance(small_generator, tmp_path):
    samples = sample_prior(small_generator, PROMPT, n=3, progress=False)
    path = samples.save(tmp_path / "new" / "baseline")
    assert path.with_suffix(".json").is_file()
    loaded = PriorSamples.load(path, prompt=PROMPT, n=3)
    assert torch.equal(loaded.embeddings, samples.embeddings) and loaded.provenance == samples.provenance
    with pytest.raises(ValueError, match="seed is 0, not 7"):
        PriorSamples.load(path, seed=7)
    with pytest.raises(FileNotFoundError):
        PriorSamples.load(tmp_path / "absent")


@pytest.mark.parametrize("bad", [{"n": 0}, {"n": 2.5}, {"batch_size": 0}, {"steps": 1}, {"steps": 2.0}])
def test_bad_numbers_are_named(small_generator, bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))}: got"):
        sample_prior(small_generator, PROMPT, **{"n": 2, "progress": False, **bad})


def test_derived_seeds():
    assert derive_seed(0, 1) == derive_seed(0, 1) < 2**32
    assert len({derive_seed(a, b) for a in range(30) for b in range(30)}) == 900


def test_a_seed_counts_by_its_value():
    for one in (np.int64(3), np.uint8(3), torch.tensor(3)):
        assert derive_seed(one, 1) == derive_seed(3, one - 2) == derive_seed(3, 1)
    assert derive_seed(np.str_("step")) == derive_seed("step")
    assert [derive_seed(seed, "step") for seed in np.arange(5)] == [derive_seed(seed, "step") for seed in range(5)]
    for bad in (1.5, None, (1,)):
        with pytest.raises(ValueError, match="^parts: got"):
            derive_seed(bad)


def test_numbers_of_numpy_are_numbers(small_generator, tmp_path):
    options = {
        "n": np.int64(3),
        "seed": np.int64(7),
        "steps": np.int32(3),
        "guidance": np.float32(1.5),
        "batch_size": np.int8(2),
    }
    drawn = sample_prior(small_generator, "a vehicle", **options, progress=False)
    plain = sample_prior(small_generator, "a vehicle", n=3, seed=7, steps=3, guidance=1.5, progress=False)
    torch.testing.assert_close(drawn.embeddings, plain.embeddings)
    assert drawn.provenance == plain.provenance
    assert PriorSamples.load(drawn.save(tmp_path / "drawn-1.5"), guidance=1.5).provenance == plain.provenance


@pytest.mark.parametrize(
    "bad", [{"guidance": float("nan")}, {"guidance": float("inf")}, {"steps": 1}, {"seed": -1}, {"seed": 2**64}, {"n": 0}]
)
def test_numbers_that_make_no_sense_are_named(small_generator, bad):
    with pytest.raises(ValueError, match=f"^{next(iter(bad))}: got"):
        sample_prior(small_generator, "a vehicle", **{"n": 2, **bad}, progress=False)
    if "guidance" in bad:
        text = small_generator.encode_text("a vehicle")
        with pytest.raises(ValueError, match="^guidance: got"):
            sample_embeddings(small_generator, text, noise_sources([1]), **bad)
