"""Half precision where no gradient is needed, full precision where one is; TF32 on CUDA alone.

A CPU can compute in bfloat16 too, so the same code is run here.
"""

import pytest
import torch

from creativelib.generator import load_generator, positive_prompt
from creativelib.loading import fast_precision
from creativelib.prior_sampling import noise_sources, sample_embeddings, sample_prior
from creativelib.pullback import SumRule
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

PROMPT = positive_prompt("vehicle")


@pytest.fixture
def halved(generator, monkeypatch):
    """The generator as on a card that multiplies bfloat16."""
    monkeypatch.setattr(generator, "sampling_dtype", torch.bfloat16)
    return generator


def dtypes_of(generator, monkeypatch) -> list[tuple[torch.dtype, torch.dtype]]:
    """What goes into and comes out of each linear layer of the prior from now on."""
    seen, plain = [], torch.nn.functional.linear

    def linear(rows, *weights):
        result = plain(rows, *weights)
        seen.append(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    return seen


def test_samples_without_gradients_are_in_half_precision_and_nearly_the_same(halved, monkeypatch):
    condition = halved.encode_text(PROMPT)
    monkeypatch.setattr(halved, "sampling_dtype", torch.float32)
    with torch.no_grad():
        expected = sample_embeddings(halved, condition, noise_sources([1, 2]))
    monkeypatch.setattr(halved, "sampling_dtype", torch.bfloat16)
    seen = dtypes_of(halved, monkeypatch)
    with torch.no_grad():
        found = sample_embeddings(halved, condition, noise_sources([1, 2]))
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert (found - expected).norm() < 0.25 * expected.norm()  # the attention of the miniatures is much sharper than a real one
    steps = halved.settings.prior_steps
    assert seen.count(torch.float32) == steps and seen.count(torch.bfloat16) > 10 * steps  # the last layer of each step


def test_a_step_of_the_search_is_in_full_precision(halved, monkeypatch):
    condition, space = halved.encode_text(PROMPT), make_space("lora", halved, "vehicle")
    seen = dtypes_of(halved, monkeypatch)
    space.sample([1]).sum().backward()
    assert set(seen) == {torch.float32}
    assert {parameter.grad.dtype for parameter in space.parameters()} == {torch.float32}
    monkeypatch.setattr(halved, "sampling_dtype", torch.float32)
    plain = sample_embeddings(halved, condition, noise_sources([1]))
    torch.testing.assert_close(space.sample([1]), plain)  # the adapters start at nothing


def test_what_was_computed_in_half_precision_says_so(halved):
    baseline = sample_prior(halved, PROMPT, n=60, progress=False)
    assert baseline.provenance["computed_in"] == "bfloat16"
    typicality = TypicalityModel.fit(baseline.embeddings, dims=6, provenance=baseline.provenance)
    settings = CreativeRun(halved, "vehicle", make_space("lora", halved, "vehicle"), typicality, rule=SumRule()).settings
    assert settings["sampling_dtype"] == "bfloat16" and settings["baseline"]["computed_in"] == "bfloat16"


def test_a_cpu_computes_in_full_precision(generator):
    assert generator.sampling_dtype == torch.float32
    assert "computed_in" not in sample_prior(generator, PROMPT, n=2, progress=False).provenance


@pytest.mark.parametrize(("bfloat16", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_tf32_and_bfloat16_are_for_cuda(bfloat16, expected, monkeypatch):
    said = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", said.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bfloat16)
    assert fast_precision(torch.device("cpu")) == torch.float32 and not said
    assert fast_precision(torch.device("cuda", 0)) == expected and said == ["high"]


def test_a_loaded_generator_is_told(miniature_folders, monkeypatch):
    monkeypatch.setattr("creativelib.generator.fast_precision", lambda device: torch.bfloat16)
    assert load_generator(miniature_folders["2.2"], device="cpu").sampling_dtype == torch.bfloat16
