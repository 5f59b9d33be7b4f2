"""The published architectures at full size: as many parameters as the checkpoints have, and, slowly, the same numbers as
diffusers' own pipeline.
"""

import json
from importlib.resources import files

import pytest
import torch
from miniature import let_noise_matter

from creativelib.full_size import (
    CHECKERS,
    FAMILIES,
    PARTS,
    FullSize,
    clip_tokenizer,
    configuration,
    make_checker,
    make_part,
    randomise,
)
from creativelib.generator import positive_prompt
from creativelib.prior_sampling import CachedPrior, noise_sources, sample_embeddings

CPU = torch.device("cpu")
# 10^9 parameters of the published checkpoints.
COUNTS = {
    ("kandinsky-2.1", "prior", "prior"): 1.022,
    ("kandinsky-2.1", "prior", "text_encoder"): 0.124,
    ("kandinsky-2.1", "prior", "image_encoder"): 0.304,
    ("kandinsky-2.1", "decoder", "unet"): 1.229,
    ("kandinsky-2.1", "decoder", "movq"): 0.068,
    ("kandinsky-2.1", "decoder", "text_encoder"): 0.56,
    ("kandinsky-2.2", "prior", "prior"): 1.026,
    ("kandinsky-2.2", "prior", "text_encoder"): 0.695,
    ("kandinsky-2.2", "prior", "image_encoder"): 1.845,
    ("kandinsky-2.2", "decoder", "unet"): 1.253,
    ("kandinsky-2.2", "decoder", "movq"): 0.068,
}


@pytest.mark.parametrize("which", COUNTS, ids="-".join)
def test_every_part_has_as_many_parameters_as_the_checkpoint(which):
    with torch.device("meta"):
        module = make_part(*which)
    count = sum(parameter.numel() for parameter in module.parameters()) / 1e9
    assert count == pytest.approx(COUNTS[which], abs=0.001)


@pytest.mark.parametrize(("name", "count"), [("janus-pro-1b", 2.09), ("smolvlm2-256m", 0.256)])
def test_every_checker_has_as_many_parameters_as_the_checkpoint(name, count):
    with torch.device("meta"):
        module = make_checker(name)
    assert sum(parameter.numel() for parameter in module.parameters()) / 1e9 == pytest.approx(count, rel=0.01)


def test_configurations_are_shipped_and_their_names_are_known():
    shipped = {path.name.removesuffix(".json") for path in files("creativelib").joinpath("published").iterdir()}
    assert shipped == {*FAMILIES, *CHECKERS}
    for family in FAMILIES:
        assert {(pipeline, part) for pipeline, parts in configuration(family).items() for part in parts} - set(PARTS) == {
            ("prior", "scheduler"), ("decoder", "scheduler")}  # fmt: skip
    json.dumps(configuration("janus-pro-1b"))
    with pytest.raises(ValueError, match="^name: got 'sdxl'; choose one of kandinsky-2.1, "):
        configuration("sdxl")


def test_random_weights_keep_signals_at_their_size():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(700, 700), torch.nn.LayerNorm(700), torch.nn.Linear(700, 900)]
    net, rows = randomise(torch.nn.Sequential(*layers)), torch.randn(50, 700)
    assert 0.9 < float(net(rows).std()) < 1.1 and not any(parameter.requires_grad for parameter in net.parameters())
    assert bool((net[1].weight == 1).all()) and not bool(net[0].bias.any())
    large = randomise(torch.nn.Linear(1024, 4096)).weight  # four blocks of numbers
    assert torch.linalg.matrix_rank(large[::4]) == 1024 and not torch.equal(large[0], large[1024])
    pair = randomise(torch.nn.ModuleList([torch.nn.Linear(700, 700), torch.nn.Linear(700, 700)]))
    alike = torch.corrcoef(torch.stack([one.weight.flatten() for one in pair]))[0, 1]
    assert abs(float(alike)) < 0.01  # queries that are keys would let every token see itself alone


def test_the_tokenizer_has_the_special_tokens_of_clip():
    tokenizer = clip_tokenizer()
    ids = tokenizer(positive_prompt("vehicle")).input_ids
    assert (ids[0], ids[-1], tokenizer.pad_token_id) == (49406, 49407, 49407) and len(ids) < 30
    assert tokenizer.decode(ids, skip_special_tokens=True).split()[:3] == ["professional", "high", "-"]


def tail_positions(cached):
    """Time, noise and PRD token at each other's places."""
    cached.tail_positions = cached.tail_positions.roll(1, 1)


def a_stale_key(cached):
    """In one block of twenty, one token is what it was a block before."""
    key = cached.keys[10].clone()
    key[:, :, 5] = cached.keys[9][:, :, 5]
    cached.keys[10] = key


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_at_full_size_ours_is_diffusers(family, monkeypatch):
    """Two steps (the miniatures take more), guidance 4, two samples: equal to diffusers' own pipeline but for float noise."""
    facts = configuration(family)
    facts["prior"]["image_encoder"] |= {"num_hidden_layers": 1}  # which has no part in it, and 3.7 GB in 2.2
    monkeypatch.setattr("creativelib.full_size.configuration", lambda name: facts)
    generator = FullSize(family, CPU, torch.bfloat16)
    let_noise_matter(generator.prior)
    prompt, prepare = positive_prompt("vehicle"), CachedPrior.__init__

    @torch.no_grad()
    def ours(mistake=lambda cached: None):
        def prepare_wrongly(cached, *arguments):
            prepare(cached, *arguments)
            mistake(cached)

        monkeypatch.setattr(CachedPrior, "__init__", prepare_wrongly)
        return sample_embeddings(generator, generator.encode_text(prompt), noise_sources([1, 2]), steps=2)

    expected = generator.prior_pipeline(
        prompt, num_images_per_prompt=2, num_inference_steps=2, guidance_scale=4.0, generator=noise_sources([1, 2])
    ).image_embeds
    tolerance = 2e-4  # measured for 2.1: 4e-5, where the samples differ by 1.4; met by 2.2 as well
    torch.testing.assert_close(ours(), expected, rtol=0, atol=tolerance)
    # What shows that equality says something: the samples differ, and a small mistake is seen.
    assert (expected[0] - expected[1]).abs().mean() > 1000 * tolerance
    for mistake in (tail_positions, a_stale_key):
        assert (ours(mistake) - expected).abs().max() > 50 * tolerance, mistake.__doc__
