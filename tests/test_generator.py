"""Generators of all families load, encode, decode through one code path, frozen, with clear errors."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from creativelib import storage
from creativelib.generator import NotFinite, load_generator, positive_prompt, with_article
from creativelib.prior_sampling import sample_prior

PROMPT = positive_prompt("vehicle")


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 32), colour)


def test_prompt_of_the_paper():
    assert PROMPT == "Professional high-quality photo of a vehicle. photorealistic, 4k, HQ."
    assert with_article("alien") == "an alien" and "of an alien." in positive_prompt(" alien ")
    for bad in ("", "  ", "?!", None):
        with pytest.raises(ValueError, match="^subject: got"):
            positive_prompt(bad)


@pytest.mark.parametrize("words", ["an alien", "a red fish", "the moon", " a  red fish "])
def test_an_article_that_is_there_is_not_put_twice(words):
    assert with_article(words) == " ".join(words.split()) and positive_prompt(words).count(" ".join(words.split())) == 1
    assert f"photo of {' '.join(words.split())}. photorealistic" in positive_prompt(words)


@pytest.mark.parametrize(("words", "small"), [("An alien", "an alien"), ("The Moon", "the Moon"), ("A  T-Rex", "a T-Rex")])
def test_an_article_is_written_small(words, small):
    """It stands in the middle of a sentence, and "An alien" is the same subject as "alien"."""
    assert with_article(words) == small and f"photo of {small}. " in positive_prompt(words)


def test_words_that_only_begin_like_an_article():
    assert [with_article(words) for words in ("anchor", "theatre", "a", "red  fish")] == [
        "an anchor", "a theatre", "an a", "a red fish"]  # fmt: skip


def test_settings_come_from_the_folder(generator):
    assert (generator.settings.prior_steps, generator.settings.image_size) == (3, 32)
    assert generator.settings.decoder_guidance == 4.0  # not in generator.json: the default


def test_everything_is_frozen_also_the_statistics_of_the_prior(generator):
    generator.decode(torch.zeros(1, generator.embedding_dim))
    modules = [*generator.prior_pipeline.components.values(), *generator.decoder_pipeline.components.values()]
    parameters = [p for module in modules if isinstance(module, torch.nn.Module) for p in module.parameters()]
    assert len(parameters) > 100 and not any(parameter.requires_grad for parameter in parameters)
    assert not generator.prior.clip_mean.requires_grad and not generator.prior.clip_std.requires_grad


@pytest.mark.parametrize("prompt", ["", "a vehicle", PROMPT, "ünïcode & 4 dragon-fruits!"])
def test_encode_text_equals_diffusers(generator, prompt):
    expected = generator.prior_pipeline._encode_prompt([prompt], generator.device, 1, False)
    condition = generator.encode_text(prompt)
    for found, wanted in zip((condition.text_embedding, condition.hidden_states, condition.mask), expected, strict=True):
        assert torch.equal(found, wanted)


def test_a_new_token_with_the_row_of_a_word_is_that_word(generator):
    row = generator.word_embedding("vehicle").requires_grad_()
    prompt = PROMPT.replace("vehicle", "<new>")
    condition = generator.encode_text(prompt, {"<new>": row})
    expected = generator.encode_text(PROMPT)
    assert torch.equal(condition.text_embedding, expected.text_embedding)
    assert torch.equal(condition.hidden_states, expected.hidden_states)
    condition.text_embedding.sum().backward()
    assert row.grad.abs().sum() > 0
    assert torch.equal(generator.encode_text(PROMPT).hidden_states, expected.hidden_states)  # nothing stayed behind
    with pytest.raises(ValueError, match="does not contain the new token '<new>'"):
        generator.encode_text("a vehicle", {"<new>": row})


def test_gradient_of_a_new_token_by_finite_differences(small_generator):
    row, epsilon = small_generator.word_embedding("vehicle"), 1e-3
    direction = torch.randn(row.shape, generator=torch.Generator().manual_seed(0))

    def value(vector):
        return small_generator.encode_text("a <new>", {"<new>": vector}).text_embedding.square().sum()

    leaf = row.clone().requires_grad_()
    value(leaf).backward()
    numeric = (value(row + epsilon * direction) - value(row - epsilon * direction)) / (2 * epsilon)
    assert float(leaf.grad @ direction) == pytest.approx(float(numeric), rel=2e-2)


def test_rows_of_the_pieces_of_a_word_and_their_mean(generator):
    ids = generator.tokenizer("dragon", add_special_tokens=False).input_ids
    table = generator.text_encoder.get_input_embeddings().weight
    assert len(ids) > 1 and torch.equal(generator.word_embeddings("dragon"), table[ids])
    assert torch.equal(generator.word_embedding("dragon"), table[ids].mean(0))
    for bad in ("", " ", "?", None):
        with pytest.raises(ValueError, match="^words: got"):
            generator.word_embeddings(bad)


def test_pooling_is_at_the_end_of_text_when_a_token_is_added(miniature_folders):
    """The trap: eos_token_id = 2 in the 2.1 files makes CLIP pool at the largest id, that of an added token."""
    generator = load_generator(miniature_folders["2.1"], device="cpu")
    assert json.loads((miniature_folders["2.1"] / "prior/text_encoder/config.json").read_text())["eos_token_id"] == 2
    tokenizer, encoder = generator.tokenizer, generator.text_encoder
    tokenizer.add_tokens("<added>")
    encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    ids = tokenizer("a <added> vehicle", padding="max_length", return_tensors="pt").input_ids
    assert ids.max() > tokenizer.eos_token_id
    with torch.no_grad():
        output = encoder(ids)
    end = int((ids[0] == tokenizer.eos_token_id).nonzero()[0])
    torch.testing.assert_close(output.text_embeds, encoder.text_projection(output.last_hidden_state[:, end]))


def test_decode_draws_by_seed_in_any_batch_size(generator):
    embeddings = torch.randn(3, generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    images = generator.decode(embeddings, prompt=PROMPT, seed=5)
    assert [image.size for image in images] == [(32, 32)] * 3
    arrays = [torch.tensor(list(image.tobytes())).float() for image in images]
    assert all(array.std() > 1 for array in arrays) and not torch.equal(arrays[0], arrays[1])
    again = generator.decode(embeddings[1:2], prompt=PROMPT, seed=[6], batch_size=1)[0]
    assert (torch.tensor(list(again.tobytes())).float() - arrays[1]).abs().max() <= 2
    other = generator.decode(embeddings[1:2], prompt=PROMPT, seed=[7])[0]
    assert other.tobytes() != again.tobytes()


def test_a_decoder_with_a_coarse_matrix_starts_from_its_painting(miniature_folders, tmp_path):
    folder = shutil.copytree(miniature_folders["2.2"], tmp_path / "painting")
    plain = load_generator(miniature_folders["2.2"], device="cpu")
    latents = plain.decoder_pipeline.movq.config.latent_channels * 16 * 16
    source = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(latents, plain.embedding_dim, generator=source), torch.randn(latents, generator=source)
    save_file({"weight": weight, "bias": bias}, folder / "decoder/coarse.safetensors")
    painting = load_generator(folder, device="cpu")
    embedding, noise = torch.randn(1, plain.embedding_dim, generator=source), torch.Generator().manual_seed(3)
    signal = painting.decoder_pipeline.scheduler.alphas_cumprod[-1]
    painted = (weight @ embedding[0] + bias).reshape(1, -1, 16, 16)
    start = signal.sqrt() * painted + (1 - signal).sqrt() * torch.randn(painted.shape, generator=noise)
    settings = painting.settings
    expected = painting.decoder_pipeline(
        image_embeds=embedding, negative_image_embeds=painting.zero_image_embedding, height=32, width=32, latents=start,
        generator=[noise], num_inference_steps=settings.decoder_steps, guidance_scale=settings.decoder_guidance,
    ).images[0]  # fmt: skip
    drawn, unpainted = (np.asarray(one.decode(embedding, seed=3)[0], dtype=int) for one in (painting, plain))
    assert np.abs(drawn - np.asarray(expected, dtype=int)).max() <= 1  # float noise may round the other way
    assert np.abs(drawn - unpainted).mean() > 5
    assert plain.coarse is None


def test_decode_without_guidance(generator):
    assert len(generator.decode(torch.zeros(2, generator.embedding_dim), guidance=1.0)) == 2


def test_the_decoder_is_told_the_prompt_where_it_reads_text_and_shall(generator, miniature_folders):
    """As published, the 2.1 decoder is told nothing: it draws what the embedding says, not what the words say."""
    embeddings = torch.zeros(1, generator.embedding_dim)
    said = [generator.decode(embeddings, prompt=words)[0].tobytes() for words in (None, "a vehicle", "a fruit")]
    assert len(set(said)) == 1
    if generator.name == "2.1":
        told = load_generator(miniature_folders["2.1"], device="cpu", decoder_prompt="subject")
        other = [told.decode(embeddings, prompt=words)[0].tobytes() for words in (None, "a vehicle", "a fruit")]
        assert other[0] == said[0] and len(set(other)) == 3
        expected = told.decoder_pipeline(
            "a fruit",
            image_embeds=embeddings,
            negative_image_embeds=told.zero_image_embedding,
            height=told.settings.image_size,
            width=told.settings.image_size,
            num_inference_steps=told.settings.decoder_steps,
            guidance_scale=told.settings.decoder_guidance,
            generator=[torch.Generator().manual_seed(0)],
        ).images[0]
        assert other[2] == expected.tobytes()


def test_the_anchor_of_21_is_the_extended_text_encoder(miniature_folders):
    """Section 6; against the encoder's own forward. It can be chosen, is a setting of a run, and nothing in other families."""
    anchors = {name: load_generator(miniature_folders["2.1"], device="cpu", anchor=name) for name in (None, "decoder", "prior")}
    pipeline = anchors["decoder"].decoder_pipeline
    read = pipeline.tokenizer(PROMPT, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        extended = pipeline.text_encoder(read.input_ids, read.attention_mask)[0]
    found = {name: generator.text_embedding(PROMPT) for name, generator in anchors.items()}
    torch.testing.assert_close(found[None], extended)
    assert torch.equal(found[None], found["decoder"]) and torch.equal(
        found[None], anchors["prior"].text_embedding(PROMPT, "decoder")
    )
    assert torch.equal(found["prior"], anchors["prior"].encode_text(PROMPT).text_embedding)
    assert found[None].shape == (1, anchors[None].embedding_dim) and not found[None].requires_grad
    assert (anchors[None].settings.anchor, anchors[None].settings.decoder_prompt) == ("decoder", "empty")
    with pytest.raises(ValueError, match="^anchor: got 'clip'; choose 'prior' or 'decoder'"):
        load_generator(miniature_folders["2.1"], device="cpu", anchor="clip")
    for switch in ({"anchor": "decoder"}, {"decoder_prompt": "subject"}):
        with pytest.raises(ValueError, match=f"^{next(iter(switch))}: got .*, but the decoder of '2.2' reads no text"):
            load_generator(miniature_folders["2.2"], device="cpu", **switch)
    other = load_generator(miniature_folders["2.2"], device="cpu")
    assert torch.equal(other.text_embedding(PROMPT), other.encode_text(PROMPT).text_embedding)
    with pytest.raises(ValueError, match="^encoder: the decoder of '2.2' reads no text; choose 'prior'"):
        other.text_embedding(PROMPT, "decoder")


def test_decode_names_what_is_wrong(generator):
    with pytest.raises(ValueError, match=r"^embeddings: got shape \(2, 5\)"):
        generator.decode(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="^seed: got 1 seeds for 2"):
        generator.decode(torch.zeros(2, generator.embedding_dim), seed=[1])


def test_decode_refuses_what_no_picture_shows(small_generator):
    embeddings = torch.zeros(3, small_generator.embedding_dim)
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="^embeddings: 1 of 3 rows hold NaN, infinite"):
            small_generator.decode(torch.cat([embeddings[:2], embeddings[2:] + value]))
    for options in (
        {"guidance": float("nan")},
        {"steps": 0},
        {"steps": 10**9},
        {"batch_size": 0},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": [1, 2, 0.5]},
        {"seed": [1, 2, 2**64]},
    ):
        with pytest.raises(ValueError, match=rf"^{next(iter(options))}: got"):
            small_generator.decode(embeddings, **options)


def test_a_picture_that_is_no_number_is_not_shown_black(small_generator):
    embeddings = torch.randn(3, small_generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    embeddings[1] *= 1e30
    with pytest.raises(NotFinite, match="^embeddings: 1 of 3 rows are too far out for the decoder in torch.float32"):
        small_generator.decode(embeddings)


def test_embeddings_of_numpy_and_lists_are_drawn(small_generator):
    embeddings = torch.randn(1, small_generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    pictures = [small_generator.decode(one, steps=2)[0] for one in (embeddings, embeddings.numpy(), embeddings.tolist())]
    assert pictures[0].tobytes() == pictures[1].tobytes() == pictures[2].tobytes()
    with pytest.raises(ValueError, match="^embeddings: got str; give numbers"):
        small_generator.decode("vehicle")


def test_after_the_last_seed_comes_the_first(small_generator):
    rows = torch.zeros(2, small_generator.embedding_dim)
    counted, said = (small_generator.decode(rows, seed=seed) for seed in (2**64 - 1, [2**64 - 1, 0]))
    assert [image.tobytes() for image in counted] == [image.tobytes() for image in said]


def test_images_are_encoded_as_diffusers_does(generator):
    images = [picture("red"), picture("blue"), picture("white")]
    embeddings = generator.encode_images(images, batch_size=2)
    pixels = generator.prior_pipeline.image_processor(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = generator.image_encoder(pixels).image_embeds
    torch.testing.assert_close(embeddings, expected)
    with pytest.raises(ValueError, match="^images: got none"):
        generator.encode_images([])


def test_prompt_that_is_too_long(generator):
    with pytest.raises(ValueError, match="^prompt: got 60 tokens"):
        generator.encode_text("vehicle " * 60)


@pytest.mark.parametrize("prompt", [None, 5, ["a vehicle"], b"a vehicle", "a \udce4 vehicle"])
def test_a_prompt_is_a_text(generator, prompt):
    calls = [generator.encode_text, generator.text_embedding, lambda prompt: sample_prior(generator, prompt, n=1)]
    if prompt is not None:  # then nothing is said
        calls.append(lambda prompt: generator.decode(torch.zeros(1, generator.embedding_dim), prompt=prompt))
    for call in calls:
        with pytest.raises(ValueError, match=f"^prompt: got {re.escape(repr(prompt))}; give words as one text"):
            call(prompt)


def test_environment_variables_choose(monkeypatch, miniature_folders, tmp_path):
    monkeypatch.setenv("CREATIVELIB_MODEL", str(miniature_folders["2.2"]))
    assert load_generator(device="cpu").name == "2.2"
    monkeypatch.setenv("CREATIVELIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make pocket"):
        load_generator("pocket")
    shutil.copytree(miniature_folders["2.2"], tmp_path / "pocket")
    assert load_generator("pocket", device="cpu").source.name == "pocket"
    monkeypatch.setenv("CREATIVELIB_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="CREATIVELIB_DATA"):
        storage.data_folder()


def test_early_21_files_without_image_processor(miniature_folders, tmp_path):
    folder = shutil.copytree(miniature_folders["2.1"], tmp_path / "early")
    index = folder / "prior/model_index.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "image_processor"}))
    assert load_generator(folder, device="cpu").prior_pipeline.image_processor is not None


def test_seeds_of_numpy_draw_the_same(small_generator):
    embeddings = torch.randn(2, small_generator.embedding_dim, generator=torch.Generator().manual_seed(0))
    expected = [image.tobytes() for image in small_generator.decode(embeddings, seed=3)]
    for seed in (np.int64(3), torch.tensor(3), np.arange(3, 5), torch.tensor([3, 4]), [np.int64(3), 4]):
        assert [image.tobytes() for image in small_generator.decode(embeddings, seed=seed)] == expected
