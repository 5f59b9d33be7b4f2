"""Conceptual spaces start at the model itself, are searched by gradient, and leave the generator bit-identical."""

import re

import pytest
import torch

from creativelib.generator import load_generator, positive_prompt
from creativelib.prior_sampling import noise_sources, sample_embeddings
from creativelib.spaces import SPACES, make_space

SEEDS = [1, 2, 3]


def fingerprint(generator) -> dict[str, torch.Tensor]:
    """Every tensor of prior and text encoder by name."""
    parts = {"prior": generator.prior, "text": generator.text_encoder}
    return {f"{part}.{k}": v.clone() for part, module in parts.items() for k, v in module.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def plain(generator) -> torch.Tensor:
    with torch.no_grad():
        return sample_embeddings(generator, generator.encode_text(positive_prompt("vehicle")), noise_sources(SEEDS))


def descend(space, steps: int = 3) -> None:
    """A few steps away from where the space is."""
    optimizer = torch.optim.AdamW(space.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        space.sample(SEEDS).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", SPACES)
def test_a_search_leaves_the_generator_bit_identical(generator, name):
    before, samples, state = fingerprint(generator), plain(generator), torch.get_rng_state()
    space = make_space(name, generator, "vehicle")
    descend(space)
    with pytest.raises(RuntimeError), space:
        raise RuntimeError("also after a failure")
    assert torch.equal(state, torch.get_rng_state())
    assert same(before, fingerprint(generator)) and torch.equal(plain(generator), samples)
    assert not any(parameter.requires_grad for parameter in generator.prior.parameters())
    assert not hasattr(generator.prior, "peft_config")


@pytest.mark.parametrize("name", ["lora", "subject-token", "lora+subject-token"])
def test_the_search_starts_at_the_model_itself_and_moves(generator, name):
    space = make_space(name, generator, "vehicle")
    with torch.no_grad():
        torch.testing.assert_close(space.sample(SEEDS), plain(generator))
    descend(space)
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in space.parameters())
    assert (space.sample(SEEDS) - plain(generator)).abs().max() > 1e-3


def test_lora_is_that_of_the_paper(generator):
    space = make_space("lora", generator, "vehicle")
    blocks, width = len(generator.prior.transformer_blocks), generator.prior.transformer_blocks[0].attn1.to_q.in_features
    first, second = ([p for n, p in space._parameters.items() if n.endswith(part)] for part in ("lora_A", "lora_B"))
    assert len(first) == len(second) == 4 * blocks
    assert all(p.shape == (10, width) and p.std() > 0 for p in first) and all(not p.any() for p in second)
    with space:
        adapted = [name for name, module in generator.prior.named_modules() if hasattr(module, "lora_A")]
    assert {name.partition(".attn1.")[2] for name in adapted} == {"to_q", "to_k", "to_v", "to_out.0"}


def by_diffusers(generator):
    """Embeddings (3, d) of a vehicle for ``SEEDS``, by diffusers' own pipeline."""
    return generator.prior_pipeline(
        positive_prompt("vehicle"),
        num_images_per_prompt=3,
        num_inference_steps=3,
        guidance_scale=2.0,
        generator=noise_sources(SEEDS),
    ).image_embeds


def test_lora_equals_peft_on_the_plain_pipeline(small_generator):
    """The same adapter, run by diffusers' own pipeline, gives the same embeddings as the cached prior."""
    space = make_space("lora", small_generator, "vehicle")
    descend(space)
    with space:
        expected = by_diffusers(small_generator)
    torch.testing.assert_close(space.sample(SEEDS).detach(), expected, rtol=1e-3, atol=1e-4)


def test_lora_seed(small_generator):
    states = [make_space("lora", small_generator, "vehicle", seed=seed).state_dict() for seed in (0, 0, 1)]
    assert same(states[0], states[1]) and not same(states[0], states[2])


def test_two_spaces_on_one_generator_do_not_mix(small_generator):
    moved, fresh = (make_space("lora", small_generator, "vehicle") for _ in range(2))
    descend(moved)
    torch.testing.assert_close(fresh.sample(SEEDS).detach(), plain(small_generator))


@pytest.mark.parametrize("name", ["subject-token", "lora+subject-token"])
@pytest.mark.parametrize(
    "subject", ["flying saucer", "dragon", "an alien", "the 3-D fruit", "U.S.A.", "vehicle?!", "a (fruit)"]
)
def test_a_subject_of_several_pieces_starts_at_the_model_itself_too(generator, name, subject):
    """One token for each piece; one for all, the mean of their rows, is another word."""
    space, text = make_space(name, generator, subject), generator.encode_text(positive_prompt(subject))
    noun = re.sub("^(an?|the) ", "", subject).rstrip(".?!)")  # signs at the end stay as they are: the next ones join them
    pieces = generator.tokenizer(noun, add_special_tokens=False).input_ids
    assert len(pieces) > 1 or noun in ("alien", "vehicle")
    assert space.state_dict()["token"].shape == (len(pieces), generator.text_encoder.config.hidden_size)
    condition = space.condition()
    assert torch.equal(condition.hidden_states, text.hidden_states) and torch.equal(condition.mask, text.mask)
    assert torch.equal(condition.text_embedding, text.text_embedding)
    with torch.no_grad():
        assert torch.equal(space.sample(SEEDS), sample_embeddings(generator, text, noise_sources(SEEDS)))


def test_every_piece_is_searched(small_generator):
    space = make_space("subject-token", small_generator, "flying saucer")
    before = space.state_dict()["token"]
    descend(space)
    assert ((space.state_dict()["token"] - before).abs().amax(1) > 1e-3).all()


def test_adjective_tokens_stand_before_the_subject(generator):
    for subject, adjective, words in (
        ("vehicle", "creative", "a creative vehicle"),
        ("fruit", "awe-inspiring", "an awe-inspiring fruit"),
        ("an alien", "creative", "a creative alien"),
        ("the moon", "creative", "the creative moon"),
    ):
        space = make_space("adjective-token", generator, subject, adjective=adjective)
        expected = generator.encode_text(f"Professional high-quality photo of {words}. photorealistic, 4k, HQ.")
        assert torch.equal(space.condition().hidden_states, expected.hidden_states)
        assert space.options == {"adjective": adjective}


def test_words_that_the_tokenizer_reads_otherwise_alone_are_refused(small_generator, monkeypatch):
    tokenize = small_generator.tokenize
    monkeypatch.setattr(
        small_generator, "tokenize", lambda prompt, tokens=(): tokenize(prompt + " and so on" * bool(tokens), tokens)
    )
    with pytest.raises(ValueError, match="^subject: got 'fruit', which the tokenizer reads together with what stands beside"):
        make_space("subject-token", small_generator, "fruit")


def test_a_block_may_stand_in_a_block(small_generator):
    """Of the same space, also hidden in its sample, or of another: what was there before is there again afterwards."""
    outer, inner = (make_space("lora", small_generator, "vehicle", seed=seed) for seed in (0, 1))
    descend(outer)
    descend(inner)

    def sample():
        with torch.no_grad():
            text = small_generator.encode_text(positive_prompt("vehicle"))
            return sample_embeddings(small_generator, text, noise_sources(SEEDS))

    alone = []
    for space in (outer, inner):
        with space:
            alone.append(sample())
    with outer:
        outer.sample(SEEDS)
        assert torch.equal(sample(), alone[0])
        with inner:
            assert torch.equal(sample(), alone[1])
        assert torch.equal(sample(), alone[0])
        with pytest.raises(RuntimeError), inner:
            raise RuntimeError
        assert torch.equal(sample(), alone[0])
    assert torch.equal(sample(), plain(small_generator))


def test_a_token_of_an_earlier_version_is_read(small_generator):
    space = make_space("subject-token", small_generator, "vehicle")
    space.load_state_dict({"token": torch.full((16,), 0.5)})
    assert torch.equal(space.state_dict()["token"], torch.full((1, 16), 0.5))
    with pytest.raises(ValueError, match="^state: got 1 tensors"):
        make_space("subject-token", small_generator, "dragon").load_state_dict({"token": torch.full((16,), 0.5)})


@pytest.mark.parametrize("name", ["lora", "lora+subject-token"])
def test_diffusers_loads_what_is_exported(miniature_folders, name, tmp_path):
    """In a fresh prior, through diffusers' own loader and pipeline, without anything of ours."""
    ours, theirs = (load_generator(miniature_folders["2.2"], device="cpu") for _ in range(2))
    space = make_space(name, ours, "vehicle", rank=3)
    descend(space)
    theirs.prior.load_lora_adapter(str(space.export(tmp_path / "vehicle-4.5")), prefix=None)
    with space:
        expected = plain(ours)
    found = by_diffusers(theirs)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert (expected - plain(ours)).abs().max() > 1e-2


def test_embedding_space_ignores_the_noise(small_generator):
    space = make_space("embedding", small_generator, "vehicle", seed=1)
    samples = space.sample([5, 6])
    assert torch.equal(samples[0], samples[1])
    torch.testing.assert_close(samples[0].detach(), plain(small_generator)[0])


@pytest.mark.parametrize("name", SPACES)
def test_state_round_trip(small_generator, name):
    space, other = (make_space(name, small_generator, "vehicle", seed=seed) for seed in (0, 1))
    descend(space)
    saved = space.state_dict()
    descend(space)
    assert not same(saved, space.state_dict())  # a copy, not a view
    other.load_state_dict(saved)
    assert same(saved, other.state_dict())
    with pytest.raises(ValueError, match="^state: got 0 tensors"):
        other.load_state_dict({})


def test_bad_arguments_are_named(small_generator):
    with pytest.raises(ValueError, match="^space: got 'nonsense'; choose one of 'lora', 'subject-token'"):
        make_space("nonsense", small_generator, "vehicle")
    with pytest.raises(ValueError, match="^subject: got ''"):
        make_space("lora", small_generator, "")
    with pytest.raises(ValueError, match="^rank: got 0"):
        make_space("lora", small_generator, "vehicle", rank=0)
    width = min(small_generator.prior.transformer_blocks[0].attn1.to_q.weight.shape)
    for rank in (width + 1, 10**9):
        with pytest.raises(
            ValueError, match=f"^rank: got {rank}; give a whole number from 1 to {width} .the width of the attention"
        ):
            make_space("lora", small_generator, "vehicle", rank=rank)
    assert make_space("lora", small_generator, "vehicle", rank=width).options == {"rank": width}
    for adjective in ("", " ", "!", None):
        with pytest.raises(ValueError, match="^adjective: got"):
            make_space("adjective-token", small_generator, "vehicle", adjective=adjective)
    with pytest.raises(ValueError, match="^seed: got -1; give a whole number from 0 to"):
        make_space("lora", small_generator, "vehicle", seed=-1)
