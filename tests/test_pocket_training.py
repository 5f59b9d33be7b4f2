"""The training loop: resumable to the bit, and the pieces of the model that have traps."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn
from torch.nn import functional

from creativelib.pocket import autoencoder, captions, clip, decoder, pixels, prior, teachers, train, training, worlds


def regression(model, generator, step):
    x = torch.randn(8, 3, generator=generator)
    return (model(x) - x.sum(1, keepdim=True)).square().mean(), {}


def new_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(3, 1)


def new_filter():
    torch.manual_seed(0)
    return torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)


def blurring(model, generator, step):
    pictures = torch.randn(4, 8, 6, 6, generator=generator)
    return (model(pictures) - pictures.mean((1, 2, 3), keepdim=True)).square().mean(), {}


@pytest.mark.parametrize(("new_model", "regression"), [(new_model, regression), (new_filter, blurring)])
def test_a_resumed_stage_ends_bit_equal_to_an_uninterrupted_one(new_model, regression, tmp_path):
    """Also where weights do not lie row by row: the optimiser's moments have to lie as they do, or belong to others."""
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


def test_figures_are_followed_to_where_they_go(tmp_path):
    """Also one of half the precision, in which a mean that moves by a fiftieth stands still."""

    def drifting(model, generator, step):
        return regression(model, generator, step)[0], {"told": torch.tensor(1.6 if step else 2.0, dtype=torch.bfloat16)}

    training.train("a", new_model(), drifting, work=tmp_path, steps=500, peak_lr=0.1)
    told = [float(line.split(",")[-1]) for line in (tmp_path / "logs/a.csv").read_text().splitlines()[1:]]
    assert told[-1] == pytest.approx(float(torch.tensor(1.6, dtype=torch.bfloat16)), abs=1e-3) and told[0] > 1.61


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


def test_colours_can_be_read_linearly_from_the_latents(tmp_path, monkeypatch):
    """Of squares in any colour; without the read-back blue keeps 17 % of its variance at this step, with it 78 %."""
    monkeypatch.setattr(autoencoder, "CROP", 32)  # a quarter of what is looked at in a real training
    draws, images = np.random.default_rng(0), np.full((24, 128, 128, 3), 255, np.uint8)
    for image in images:
        for _ in range(6):
            top, left = draws.integers(0, 90, 2)
            image[top : top + 38, left : left + 38] = draws.integers(0, 255, 3)
    model = autoencoder.train(images, tmp_path, "cpu", steps=80)
    latents = autoencoder.encode(model, images).movedim(1, -1).reshape(-1, autoencoder.LATENT_CHANNELS).double()
    colours = functional.avg_pool2d(autoencoder.to_tensor(images), 8).movedim(1, -1).reshape(-1, 3).double()
    chroma = colours - colours.mean(1, keepdim=True)
    known = torch.cat([latents, torch.ones(len(latents), 1, dtype=torch.float64)], 1)
    rest = chroma - known @ torch.linalg.lstsq(known, chroma).solution
    assert (rest.var(0) / chroma.var(0)).max() < 0.3


def test_the_decoding_half_is_trained_without_changing_the_latents(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = autoencoder.build().eval()
    images = np.full((4, 128, 128, 3), 255, np.uint8)
    images[:, 30:90, 20:100] = np.random.default_rng(0).integers(0, 200, (4, 1, 1, 3), dtype=np.uint8)
    both = worlds.Worlds([images], np.array([0, 4]), 4 * [{}], torch.ones(4, dtype=torch.bool), torch.full((4,), 0.25))
    before, drawn = autoencoder.encode(model, images), autoencoder.decode(model, autoencoder.encode(model, images))
    model = pixels.train(model, both, before.half(), before.half(), tmp_path, "cpu", steps=2, batch=2)
    assert torch.equal(autoencoder.encode(model, images), before)
    assert (autoencoder.decode(model, before) != drawn).any()


@pytest.mark.parametrize(
    ("top", "left", "seen"),
    [(0, 0, (slice(0, 56), slice(0, 56))), (64, 64, (slice(8, 64), slice(8, 64))), (64, 8, (slice(8, 64), slice(8, 56)))],
)
def test_only_a_border_of_the_picture_is_looked_at_and_no_cut(top, left, seen):
    expected = torch.zeros(1, 64, 64, dtype=torch.bool)
    expected[0][seen] = True
    assert torch.equal(pixels.away_from_cuts(top, left), expected)


def test_paper_is_to_be_white_and_colours_may_be_what_they_are():
    wanted = torch.tensor([1.0, 0.95, 0.5]).view(1, 1, 1, 3).expand(1, 3, 1, 3)  # white, nearly white, a light grey
    pixels_ = torch.full((1, 3, 1, 3), 0.4)
    assert float(pixels.off_white(pixels_, wanted)) == pytest.approx(0.6 * 2 / 3)
    assert float(pixels.off_white(1 + pixels_, wanted)) == 0  # it is cut at white later


def test_a_critic_tells_sharp_from_smeared_and_the_decoding_half_feels_it():
    """One step of each on features of edges: the critic's verdicts part, and fooling it has a gradient."""
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = pixels.PatchCritic([4])
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    real, made = torch.randn(8, 4, 6, 6, generator=source) + 1, torch.randn(8, 4, 6, 6, generator=source)
    for _ in range(60):
        optimizer.zero_grad()
        (functional.relu(1 - critic([real])[0]).mean() + functional.relu(1 + critic([made])[0]).mean()).backward()
        optimizer.step()
    assert critic([real])[0].mean() > critic([made])[0].mean() + 1
    made.requires_grad_(True)
    critic([made])[0].mean().backward()
    assert made.grad.abs().sum() > 0


def test_a_log_keeps_its_columns_when_a_stage_has_another_figure(tmp_path):
    log = tmp_path / "stage.csv"
    training.write_line(log, {"step": 100, "loss": 0.5})
    training.write_line(log, {"step": 200, "loss": 0.4})
    assert log.read_text() == "step,loss\n100,0.5\n200,0.4\n"
    training.write_line(log, {"step": 300, "loss": 0.3, "paper": 0.01})
    training.write_line(log, {"step": 400, "loss": 0.2, "paper": 0.02})
    assert log.read_text() == "step,loss,paper\n100,0.5,\n200,0.4,\n300,0.3,0.01\n400,0.2,0.02\n"
    training.write_line(log, {"step": 300, "loss": 0.31, "paper": 0.01})  # from the checkpoint at 250, after a kill
    assert log.read_text() == "step,loss,paper\n100,0.5,\n200,0.4,\n300,0.31,0.01\n"


def test_group_norms_read_float32_only_while_training():
    norm = nn.GroupNorm(1, 4)
    half = torch.randn(2, 4, 3).bfloat16()
    model = nn.Sequential(norm)
    with training.float32_norms(model):
        assert model(half).dtype == torch.float32
    assert norm.bfloat16()(half).dtype == torch.bfloat16
    assert not norm._forward_pre_hooks


def test_pixels_round_trip():
    images = np.random.default_rng(0).integers(0, 255, (2, 128, 128, 3), dtype=np.uint8)
    assert (autoencoder.to_images(autoencoder.to_tensor(images)) == images).all()


def test_timesteps_of_the_decoder_favour_noise():
    t = decoder.draw_timesteps(20000, torch.Generator().manual_seed(0))
    assert t.min() >= 0 and t.max() == decoder.START - 1
    assert 0.72 < (t > decoder.START / 2).float().mean() < 0.78


def test_half_of_the_timesteps_of_the_prior_are_those_that_five_steps_ask():
    schedule = prior.scheduler()
    schedule.set_timesteps(5)
    t = prior.draw_timesteps((200, 100), torch.Generator().manual_seed(0))
    asked = torch.isin(t, schedule.timesteps[:-1])
    assert schedule.timesteps[-1] == 0 and 0.48 < asked.float().mean() < 0.53
    assert t[~asked].float().mean() == pytest.approx(500, abs=10)


def test_coarse_latents_are_the_least_squares_fit():
    source = torch.Generator().manual_seed(0)
    embeddings = torch.randn(4000, 12, generator=source)
    matrix, bias = torch.randn(8 * 256, 12, generator=source), torch.randn(8 * 256, generator=source)
    coarse = decoder.fit_coarse(embeddings, (embeddings @ matrix.T + bias).unflatten(1, (8, 16, 16)))
    found = decoder.paint(coarse, embeddings[:5])
    wanted = (embeddings[:5] @ matrix.T + bias).unflatten(1, (8, 16, 16))
    assert float((found - wanted).square().mean() / wanted.square().mean()) < 1e-3  # the ridge shrinks by two hundredths
    assert torch.allclose(coarse["bias"], bias, atol=0.3)


def test_what_the_matrix_paints_stays_within_real_latents():
    source = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2000, 4, generator=source)
    latents = (embeddings @ torch.randn(2048, 4, generator=source).T).unflatten(1, (8, 16, 16))
    coarse = decoder.fit_coarse(embeddings, latents)
    far = decoder.paint(coarse, 50 * embeddings[:20])
    assert float(far.abs().max()) <= float(latents.abs().max())


def test_strayed_embeddings_go_as_far_as_a_search_and_where_it_goes():
    source = torch.Generator().manual_seed(0)
    embeddings = functional.normalize(torch.randn(4000, 320, generator=source), dim=-1) * 320**0.5
    axes = torch.linalg.qr(torch.randn(320, decoder.AXES, generator=source))[0].T[None]
    shift = decoder.stray(embeddings, axes, source) - embeddings
    moved = shift.norm(dim=-1)
    assert (moved > 11).float().mean() > 0.12 and moved.max() > 15  # what 100 nats take
    far = shift[moved > 14]
    assert float((far @ axes[0].T).norm(dim=-1).mean() / far.norm(dim=-1).mean()) > 0.85  # noise fills the other directions


def test_axes_of_a_search_are_those_of_each_subject(monkeypatch):
    monkeypatch.setattr(decoder, "AXES", 3)
    source = torch.Generator().manual_seed(0)
    embeddings, records = torch.randn(60, 8, generator=source) * 0.1, 30 * [{"nouns": ["fruit"]}] + 30 * [{"nouns": ["tool"]}]
    embeddings[:30, 2] += 5 * torch.randn(30, generator=source)
    typical = torch.ones(60, dtype=torch.bool)
    axes = decoder.search_axes(worlds.Worlds([], np.array([0, 60]), records, typical, torch.ones(60) / 60), embeddings)
    assert axes.shape == (2, 3, 8) and abs(float(axes[0, 0, 2])) > 0.99
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand(2, 3, 3), atol=1e-5, rtol=0)


def test_the_decoder_starts_in_the_schedule_it_was_trained_on():
    whole, cut = DDIMScheduler(beta_schedule="squaredcos_cap_v2"), decoder.scheduler()
    assert torch.allclose(cut.alphas_cumprod, whole.alphas_cumprod[: decoder.START])
    cut.set_timesteps(15)
    assert cut.timesteps[0] == decoder.START - 1 and len(cut.timesteps) == 15


def test_a_caption_fits_the_pictures_that_it_is_learned_with():
    records = [
        {"label": "fire engine", "tags": ["truck"], "nouns": ["vehicle"], "style": "flat"},
        {"label": "taxi", "tags": ["car"], "nouns": ["vehicle"], "style": "flat"},
        {"label": "taxi", "tags": ["car"], "nouns": ["vehicle"], "style": "3d", "colour": "yellow"},
        {"label": "apple", "tags": [], "nouns": ["fruit"], "style": "flat"},
    ]
    rows = {key: value.tolist() for key, value in captions.pictures_of(records).items()}
    assert rows["vehicle", None] == rows["means of transport", None] == [0, 1, 2] and rows["vehicle", "flat"] == [0, 1]
    assert rows["taxi", "3d"] == rows["taxi", "yellow"] == [2] and rows["car", None] == [1, 2] and rows["fruit", None] == [3]
    for row, record in enumerate(records):
        for step in range(50):
            drawn = captions.draw(record, training.step_generator(0, step))
            assert row in rows[drawn.phrase, drawn.look] and drawn.phrase in drawn.text


def test_subjects_are_drawn_three_times_as_often():
    records = [{"nouns": [noun]} for noun in ["vehicle"] * 4 + ["tool"] * 4]
    weights = captions.sampling_weights(records)
    assert weights.sum() == pytest.approx(1) and float(weights[0] / weights[-1]) == pytest.approx(3)


def test_words_that_no_caption_holds_are_whole_tokens(monkeypatch):
    some = {*sorted(teachers.vocabulary())[::10], "barge", "boat", "lamp"}  # of 30,000, each of which is read
    monkeypatch.setattr(teachers, "vocabulary", lambda: list(some))
    words = clip.depictable_words(["boat", "flying saucer", "lamp"], count=10)
    assert "barge" in words and not {"boat", "lamp"} & set(words) and len(words) == 10
    tokens = clip.train_tokenizer(["boat", "flying saucer", "lamp"], words)
    assert tokens.tokenize("barge") == ["barge</w>"]


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
