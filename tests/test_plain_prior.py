"""Where something hangs on the prior's own forward it is called: hooks, compiled code, another attention; half precision."""

import copy

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor

from creativelib.generator import positive_prompt
from creativelib.plain_prior import PlainPrior, must_be_called
from creativelib.prior_sampling import CachedPrior, noise_sources, sample_embeddings
from creativelib.spaces import LoRA

PROMPT = positive_prompt("vehicle")


@pytest.fixture
def apart(generator):
    """The generator with a prior of its own, to hang things on."""
    before, generator.prior = generator.prior, copy.deepcopy(generator.prior)
    yield generator
    generator.prior = before


def test_both_compute_the_same(generator):
    conditions = [generator.encode_text(prompt) for prompt in ("", "a vehicle", PROMPT)]
    noisy = torch.randn(2, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    found, expected = (kind(generator.prior, conditions)(noisy, 499) for kind in (PlainPrior, CachedPrior))
    assert found.shape == (3, 2, generator.embedding_dim)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


HANGING = {
    "a hook of accelerate": lambda prior: add_hook_to_module(prior, AlignDevicesHook("cpu")),
    "a hook on a block": lambda prior: prior.transformer_blocks[0].register_forward_hook(lambda *_: None),
    "another attention": lambda prior: prior.set_attn_processor(SlicedAttnProcessor(1)),
}


@pytest.mark.parametrize("what", HANGING)
def test_what_hangs_on_the_forward_is_run(what, apart):
    condition = apart.encode_text(PROMPT)
    expected = sample_embeddings(apart, condition, noise_sources([1, 2]))
    assert not must_be_called(apart.prior)
    HANGING[what](apart.prior)
    assert must_be_called(apart.prior)
    calls = []
    apart.prior.proj_to_clip_embeddings.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    found = sample_embeddings(apart, condition, noise_sources([1, 2]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert set(calls) == {2}  # the plain prior answers each condition by itself, the cached one all of them: 4


def test_adapters_and_plain_attentions_are_not_in_the_way(apart):
    with LoRA(apart, "vehicle"):
        assert not must_be_called(apart.prior)
    apart.prior.set_attn_processor(AttnProcessor())
    assert not must_be_called(apart.prior)


def test_compiled_code_is_not_gone_around(small_generator):
    prior = copy.deepcopy(small_generator.prior)
    assert must_be_called(torch.compile(prior, backend="eager"))
    prior.compile(backend="eager")
    assert must_be_called(prior)


@pytest.mark.parametrize("kind", [PlainPrior, CachedPrior])
def test_a_prior_in_half_precision(kind, apart):
    conditions = [apart.encode_text(prompt) for prompt in ("", PROMPT)]
    noisy = torch.randn(2, apart.embedding_dim, generator=torch.Generator().manual_seed(0))
    expected = kind(apart.prior, conditions)(noisy, 499)
    half = apart.prior.bfloat16()
    found = kind(half, conditions)(noisy, 499)
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()
    assert sample_embeddings(apart, conditions[1], noise_sources([1])).dtype == torch.float32
