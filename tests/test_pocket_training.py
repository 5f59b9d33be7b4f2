"""The training loop: resumable to the bit, and the pieces of the model that have traps."""

import numpy as np
import pytest
import torch
from torch import nn

from creativelib.pocket import autoencoder, clip, decoder, prior, train, training


def regression(model, generator, step):
    x = torch.randn(8, 3, generator=generator)
    return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}


def new_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1)


def test_a_resumed_stage_ends_bit_equal_to_an_uninterrupted_one(tmp_path):
    whole = training.train("a", new_model(), regression, work=tmp_path / "1", steps=30, peak_lr=0.1)

    class Killed(Exception):
        pass

    def until(model, generator, step):
        if step == 17:
            raise Killed
        return regression(model, generator, step)

    with pytest.raises(Killed):  # checkpoint_seconds=0: one after every step
        training.train("a", new_model(), until, work=tmp_path / "2", steps=30, peak_lr=0.1, checkpoint_seconds=0)
    resumed = training.train("a", new_model(), regression, work=tmp_path / "2", steps=30, peak_lr=0.1)
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
    error = [float(regression(m, training.step_generator(9, 9), 0)[0].detach()) for m in (new_model(), whole)]
    assert error[1] < error[0]  # and it learned something


def test_a_finished_stage_is_not_trained_again(tmp_path):
    first = training.train("a", new_model(), regression, work=tmp_path, steps=5, peak_lr=0.1)

    def never(model, generator, step):
        raise AssertionError("trained again")

    again = training.train("a", new_model(), never, work=tmp_path, steps=5, peak_lr=0.1)
    assert torch.equal(first.weight, again.weight)


@pytest.fixture(scope="module")
def tokenizer():
    return clip.train_tokenizer(["vehicle", "flying saucer", "dog", "chair"])


def test_any_word_tokenises_and_comes_back(tokenizer):
    for word in ("vehicle", "zyzzyva", "smörgåsbord", "4k", "3d-printed!"):
        ids = tokenizer(word).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id and len(ids) > 2
        assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.tokenize("vehicle") == ["vehicle</w>"]


def test_text_is_pooled_at_its_end_even_when_a_token_with_a_larger_id_is_added(tokenizer):
    model = clip.build_text_encoder(tokenizer).eval()
    config = model.config
    assert config.eos_token_id != 2
    ids = torch.tensor([[config.bos_token_id, 5, 6, config.eos_token_id]])
    model.resize_token_embeddings(config.vocab_size + 1)
    with_new = torch.tensor([[config.bos_token_id, 5, config.vocab_size - 1, config.eos_token_id]])
    for row in (ids, with_new):
        output = model(row)
        pooled = model.text_projection(output.last_hidden_state[0, -1])
        assert torch.allclose(output.text_embeds[0], pooled, atol=1e-6)


def test_normalise_makes_unit_latents_and_changes_no_picture():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = autoencoder.build().eval()
    images = np.random.default_rng(0).integers(0, 255, (6, 128, 128, 3), dtype=np.uint8)
    before = autoencoder.decode(model, autoencoder.encode(model, images)).astype(int)
    autoencoder.normalise(model, images)
    latents = autoencoder.encode(model, images)
    after = autoencoder.decode(model, latents).astype(int)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert np.abs(before - after).max() <= 1


def test_pixels_round_trip():
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
    assert (autoencoder.to_images(autoencoder.to_tensor(images)) == images).all()


def test_timesteps_favour_noise():
    t = decoder.draw_timesteps(20000, torch.Generator().manual_seed(0))
    assert t.min() >= 0 and t.max() == 999
    assert 0.055 < (t == 999).float().mean() < 0.075
    assert (t > 500).float().mean() > 0.7


def test_a_new_prior_is_not_constant():
    """diffusers initialises clip_std and prd_embedding to zero, which makes every embedding equal."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = prior.build()
    assert (model.clip_std == 1).all() and model.prd_embedding.abs().max() > 0


def test_export_refuses_files_over_the_limit(tmp_path):
    (tmp_path / "big.bin").write_bytes(bytes(16 * 2**20))
    with pytest.raises(SystemExit, match="big.bin"):
        train.check_sizes(tmp_path)


def test_checksums_cover_every_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.txt").write_text("x")
    train.write_checksums(tmp_path)
    digest, name = (tmp_path / "SHA256SUMS").read_text().split()
    assert name == "a/x.txt" and len(digest) == 64
