"""The shipped Pocket Kandinsky: it is what it says, diffusers and transformers load it, and the method works on it.

Quality is measured by ``make pocket-evaluate``; here stand the floors under which something must be broken.
"""

import hashlib
import json
import re

import numpy as np
import pytest
import torch
from diffusers import KandinskyPriorPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline
from PIL import Image
from torch.nn import functional

from creativelib.generator import load_generator, positive_prompt
from creativelib.pocket import autoencoder, model_card
from creativelib.pocket.measured import weights_of
from creativelib.pocket.train import check_sizes
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import SumRule, load_checker
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.storage import data_folder
from creativelib.typicality import TypicalityModel

POCKET = data_folder() / "pocket"
SUBJECTS = ("building", "vehicle", "alien", "fruit", "handbag", "chair", "pet", "dinosaur")


@pytest.fixture(scope="module")
def generator():
    return load_generator("pocket", device="cpu")


@pytest.fixture(scope="module")
def samples(generator):
    """Sixteen prior samples of each subject, and the pictures of the first eight."""
    drawn = {
        subject: sample_prior(generator, positive_prompt(subject), n=16, progress=False).embeddings for subject in SUBJECTS
    }
    return {subject: (embeddings, generator.decode(embeddings[:8])) for subject, embeddings in drawn.items()}


def test_every_file_is_the_one_that_was_measured_and_small_enough():
    lines = (POCKET / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {p.relative_to(POCKET).as_posix(): p for p in POCKET.rglob("*") if p.is_file() and p.name != "SHA256SUMS"}
    assert set(listed) == set(files)
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name], name
        assert path.stat().st_size <= 15 * 2**20, name


def test_the_models_together_are_small_enough():
    check_sizes(POCKET)  # which counts everything but the sheets of the model card


def test_weights_are_half_precision_safetensors():
    weights = [path for path in POCKET.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".ckpt", ".pth")]
    assert weights and all(path.suffix == ".safetensors" for path in weights)
    assert KandinskyV22Pipeline.from_pretrained(POCKET / "decoder", dtype=torch.float16).unet.dtype == torch.float16


@pytest.mark.parametrize("pipeline", [KandinskyV22PriorPipeline, KandinskyPriorPipeline])
def test_diffusers_own_pipelines_draw_with_it(pipeline):
    prior = pipeline.from_pretrained(POCKET / "prior", dtype=torch.float32)
    decoder = KandinskyV22Pipeline.from_pretrained(POCKET / "decoder", dtype=torch.float32)
    for loaded in (prior, decoder):
        loaded.set_progress_bar_config(disable=True)
    output = prior(
        "a photo of a vehicle", num_inference_steps=5, guidance_scale=2.0, generator=torch.Generator().manual_seed(0)
    )
    image = decoder(
        image_embeds=output.image_embeds,
        negative_image_embeds=output.negative_image_embeds,
        height=128,
        width=128,
        num_inference_steps=5,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert image.size == (128, 128) and np.asarray(image).std() > 10


def test_our_sampling_equals_diffusers_on_the_shipped_weights(generator):
    sources = [torch.Generator().manual_seed(i) for i in range(4)]
    theirs = generator.prior_pipeline(
        positive_prompt("chair"), num_images_per_prompt=4, num_inference_steps=5, guidance_scale=2.0, generator=sources
    ).image_embeds
    from creativelib.prior_sampling import noise_sources, sample_embeddings

    ours = sample_embeddings(
        generator, generator.encode_text(positive_prompt("chair")), noise_sources(range(4)), steps=5, guidance=2.0
    )
    assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_samples_are_nearest_to_their_own_subject(generator, samples):
    texts = torch.cat([generator.encode_text(positive_prompt(subject)).text_embedding for subject in SUBJECTS])
    for index, subject in enumerate(SUBJECTS):
        nearest = (functional.normalize(samples[subject][0], dim=-1) @ functional.normalize(texts, dim=-1).T).argmax(1)
        assert (nearest == index).float().mean() >= 0.8, subject


def test_pictures_show_something_on_white_and_differ(samples):
    for subject, (_, pictures) in samples.items():
        stack = np.stack([np.asarray(picture, float) for picture in pictures])
        assert stack.shape == (8, 128, 128, 3)
        assert (stack[:, :4, :4].mean((1, 2, 3)) > 200).mean() >= 0.7, subject  # most have a white corner
        assert stack.std(0).mean() > 15, subject


def test_decodes_come_back_to_their_embedding(generator, samples):
    own, other = [], []
    for embeddings, pictures in samples.values():
        back, embeddings = generator.encode_images(pictures), embeddings[: len(pictures)]
        own.append(functional.cosine_similarity(embeddings, back).mean())
        other.append(functional.cosine_similarity(embeddings.roll(5, 0), back).mean())
    assert np.mean(own) > np.mean(other) + 0.05


def test_colours_are_linear_in_the_latents(generator, samples):
    """Below the autoencoder all reads the latents linearly; an encoder that kept 0.03 of green that way drew teal meadows."""
    pictures = np.stack([np.asarray(picture) for _, drawn in samples.values() for picture in drawn])
    latents = autoencoder.encode(generator.decoder_pipeline.movq, pictures).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    colours = pictures.reshape(-1, 16, 8, 16, 8, 3).mean((2, 4)).reshape(-1, 3)
    inputs = np.column_stack([latents, np.ones(len(latents))])
    rest = colours - inputs @ np.linalg.lstsq(inputs, colours, rcond=None)[0]
    assert (1 - rest.var(0) / colours.var(0)).min() > 0.95
    chroma, rest = (values - values.mean(1, keepdims=True) for values in (colours, rest))
    assert (1 - rest.var(0) / chroma.var(0)).min() > 0.9


def test_checker_answers_yes_to_the_subject_more_than_to_another(samples):
    checker = load_checker(device="cpu")
    right = [checker.check(p, s).probability for s, (_, pictures) in samples.items() for p in pictures[:4]]
    wrong = [checker.check(p, SUBJECTS[i - 3]).probability for i, s in enumerate(SUBJECTS) for p in samples[s][1][:4]]
    assert np.mean(right) > np.mean(wrong) + 0.2


def test_checker_refuses_noise():
    checker = load_checker(device="cpu")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    assert np.mean([checker.check(noise, subject).probability for subject in SUBJECTS]) < 0.5


def test_a_run_raises_the_surprise_and_keeps_the_subject(generator):
    baseline = sample_prior(generator, positive_prompt("vehicle"), n=600, progress=False)
    typicality = TypicalityModel.fit(baseline.embeddings, provenance=baseline.provenance)
    run = CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), typicality).run(40, progress=False)
    seeds = list(range(32))
    before, after = run.sample(seeds, step=0), run.sample(seeds)
    assert typicality.surprise(after).mean() > typicality.surprise(before).mean() + 5
    text = run.text_embedding
    assert functional.cosine_similarity(after, text).mean() > functional.cosine_similarity(before, text).mean() - 0.25


@pytest.mark.parametrize("subject", ["flying saucer", "fire truck", "dragon fruit"])
def test_subjects_of_several_words_start_at_the_model_itself(generator, subject):
    """With one token for all pieces, the mean of their rows, they started 40 to 80 nats away."""
    prompt, seeds = positive_prompt(subject), list(range(32))
    baseline = sample_prior(generator, prompt, n=300, progress=False)
    typicality = TypicalityModel.fit(baseline.embeddings, provenance=baseline.provenance)
    space = make_space("subject-token", generator, subject)
    run = CreativeRun(generator, subject, space, typicality, rule=SumRule(0.0))
    assert len(generator.word_embeddings(subject)) > 1
    assert torch.equal(typicality.surprise(run.sample(seeds, 0)), typicality.surprise(run.default(seeds)))


def test_a_typicality_model_of_another_subject_is_noticed_though_it_does_not_say_so(generator):
    drawn = sample_prior(generator, positive_prompt("vehicle"), n=300, progress=False).embeddings
    silent = TypicalityModel.fit(drawn)
    with pytest.raises(ValueError, match="^typicality: plain samples of '.*a fruit.*' are at a squared distance of"):
        CreativeRun(generator, "fruit", make_space("subject-token", generator, "fruit"), silent, rule=SumRule(0.0))
    with pytest.warns(UserWarning, match="^typicality: it does not say"):
        CreativeRun(generator, "vehicle", make_space("subject-token", generator, "vehicle"), silent, rule=SumRule(0.0))


def test_the_anchor_threshold_is_that_of_the_handbags_themselves(generator):
    """99 of 100 pass. Samples of the Gaussian gave a threshold that each of them passed by far."""
    samples = sample_prior(generator, positive_prompt("handbag"), n=1000, seed=5, progress=False)
    drawn = samples.embeddings
    space = make_space("subject-token", generator, "handbag")
    run = CreativeRun(generator, "handbag", space, TypicalityModel.fit(drawn, provenance=samples.provenance))
    losses = 1 - functional.cosine_similarity(drawn, run.text_embedding)
    assert 0.98 <= float((losses <= run.rule.threshold).float().mean()) <= 0.999


def test_the_model_card_says_what_was_measured():
    evaluation = json.loads((POCKET / "evaluation.json").read_text())
    card = (POCKET / "MODEL_CARD.md").read_text()
    assert card == model_card.render(evaluation)
    links = set(re.findall(r"\]\(sheets/(\w+)\.jpg\)", card))
    assert links >= {"corpus", "held_out_decodes", "nearest_training_images", *(f"samples_{subject}" for subject in SUBJECTS)}
    for link in links:
        assert (POCKET / "sheets" / f"{link}.jpg").stat().st_size > 10_000


def test_what_was_measured_are_the_shipped_weights():
    evaluation = json.loads((POCKET / "evaluation.json").read_text())
    if "weights" in evaluation:  # the first evaluations did not say
        assert evaluation["weights"] == weights_of(POCKET), "measure again: make pocket-evaluate"


def test_the_reference_labels_are_of_the_shipped_weights():
    """Labels are of pictures: other weights draw others, and the marks would silently be of the wrong ones."""
    made_with = json.loads((data_folder() / "reference_labels" / "made_with.json").read_text())
    for name, digest in made_with["sha256"].items():
        assert hashlib.sha256((POCKET / name).read_bytes()).hexdigest() == digest, f"{name}: label again, see the README there"
