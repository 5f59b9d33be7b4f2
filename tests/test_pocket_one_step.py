"""The one-step model's training: what its teacher draws is a function of the noise, is kept, and teaches."""

import json

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.nn import functional

from creativelib.frameworks import pocket
from creativelib.pocket import autoencoder, clip, decoder, one_step, one_step_pairs, prior, taxonomy

RECORDS = [
    {"label": f"{noun} {number}", "tags": [], "nouns": [noun], "style": "flat"}
    for noun in ("vehicle", "fruit")
    for number in range(3)
]


@pytest.fixture(scope="module")
def teacher():
    """Of random weights, with one step of the decoder."""
    tokenizer = clip.train_tokenizer(["vehicle", "fruit"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = clip.build_text_encoder(tokenizer), prior.build(), decoder.build()
        coarse = {"weight": 0.05 * torch.randn(2048, clip.DIM), "bias": torch.zeros(2048)}
    coarse |= {"low": torch.full((2048,), -3.0), "high": torch.full((2048,), 3.0)}
    return one_step_pairs.Teacher(tokenizer, *parts, coarse, torch.zeros(1, clip.DIM), "cpu", 1.5, 1, 2.5)


def test_patterns_carry_noise_locally_and_lie_near_to_what_they_change():
    source = torch.Generator().manual_seed(0)
    matrix = torch.randn(2048, clip.DIM, generator=source) * torch.linspace(2, 0.1, clip.DIM)
    patterns = one_step_pairs.noise_patterns(matrix)
    torch.testing.assert_close(patterns.T @ patterns, torch.eye(clip.DIM), atol=1e-4, rtol=0)
    pictures = patterns.T.unflatten(1, one_step_pairs.SHAPE)
    blocks = functional.avg_pool2d(pictures, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(blocks, pictures)
    change = patterns.T @ matrix  # a noise is only made larger or smaller where it lies, nowhere turned
    torch.testing.assert_close(change, change.T, atol=1e-3, rtol=1e-3)
    assert torch.linalg.eigvalsh(change.double()).min() > -1e-4


def test_the_teacher_is_a_function_of_the_noise(teacher):
    noise = torch.randn(2, 2, *one_step_pairs.SHAPE, generator=torch.Generator().manual_seed(1))
    texts = ["a vehicle", "a fruit"]
    drawn = teacher.draw(texts, noise)
    assert drawn.shape == noise.shape and torch.equal(drawn, teacher.draw(texts, noise))
    apart = teacher.draw(texts[1:], noise[1:, 1:])[0, 0]  # alone, and beside others
    assert (apart - drawn[1, 1]).norm() < 0.02 * drawn[1, 1].norm()
    assert (drawn[0, 0] - drawn[0, 1]).abs().max() > 0.1
    assert (teacher.noise.flatten(1) @ teacher.patterns).abs().max() < 1e-4  # the decoder's own noise paints nothing
    free = torch.randn(2048, generator=torch.Generator().manual_seed(2))
    free = free - teacher.patterns @ (teacher.patterns.T @ free)  # what no pattern carries changes nothing
    assert (teacher.draw(texts, noise + free.view(one_step_pairs.SHAPE)) - drawn).norm() < 0.02 * drawn.norm()


def test_the_deterministic_path_keeps_samples_of_a_gaussian():
    """A prior whose answer is always what a standard normal would expect leaves standard normal noise as it is."""
    model = prior.build()
    signal = prior.scheduler().alphas_cumprod

    class Gaussian(one_step_pairs.CachedPrior):
        def each(self, noisy, timesteps):
            return signal[int(timesteps)].sqrt() * noisy

    tokenizer = clip.train_tokenizer(["vehicle"])
    parts = clip.build_text_encoder(tokenizer), model, decoder.build()
    coarse = {"weight": torch.eye(2048)[:, : clip.DIM], "bias": torch.zeros(2048)}
    made = one_step_pairs.Teacher(tokenizer, *parts, coarse, torch.zeros(1, clip.DIM), "cpu", 1.5, 1, 2.5)
    noise = torch.randn(1, 3, clip.DIM, generator=torch.Generator().manual_seed(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one_step_pairs, "CachedPrior", Gaussian)
        torch.testing.assert_close(made.embeddings(["a vehicle"], noise), noise, atol=0.1, rtol=0.1)


def test_pairs_are_made_once_and_made_again_where_one_is_lost(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(one_step_pairs, "TEXTS", 2)
    monkeypatch.setattr(one_step_pairs, "SEEDS", 2)
    first = one_step_pairs.make_pairs(teacher, RECORDS, 7, tmp_path, seed=3)
    assert len(first) == 8 and first.texts[0] == first.texts[1] and first.noise.shape == first.latents.shape
    assert len({text for text in first.texts}) > 1 and len(list(tmp_path.iterdir())) == 2

    class Idle:
        def draw(self, texts, noise):
            raise AssertionError("drawn again")

    again = one_step_pairs.make_pairs(Idle(), RECORDS, 7, tmp_path, seed=3)
    assert again.texts == first.texts and torch.equal(again.latents, first.latents)
    (tmp_path / "00001.safetensors").unlink()
    again = one_step_pairs.make_pairs(teacher, RECORDS, 7, tmp_path, seed=3)
    assert again.texts == first.texts and torch.equal(again.noise, first.noise)
    torch.testing.assert_close(again.latents, first.latents)
    mark = teacher.mark
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "decoder_guidance", 1.0)
        assert teacher.mark != mark


def test_the_student_learns_and_what_is_shipped_is_measured(teacher, tmp_path, monkeypatch):
    """Two steps, a file of the right size, and the marks of what it was trained with."""
    monkeypatch.setattr(one_step_pairs, "TEXTS", 2)
    monkeypatch.setattr(one_step_pairs, "SEEDS", 2)

    class Judge:
        def is_subject(self, images, subject):
            assert images.shape == (1, 128, 128, 3) and subject in taxonomy.SUBJECTS
            return np.array([True])

    monkeypatch.setattr(one_step.Judge, "load", lambda folder: Judge())
    movq = autoencoder.build().eval()
    movq.save_pretrained(tmp_path / "decoder" / "movq")
    monkeypatch.setattr(one_step_pairs.Teacher, "load", lambda folder, device: teacher)
    out = tmp_path / "student"
    one_step.distil(tmp_path, RECORDS, tmp_path, out, count=8, steps=2)
    facts = json.loads((out / "one_step.json").read_text())
    assert facts["measured"]["judge"]["fruit"] == {"student": 1.0, "teacher": 1.0} and facts["pairs"] == 6
    assert 0 < facts["measured"]["unexplained"] and facts["learned_from"] == pocket.marks(movq, teacher.text_encoder)
    student = UNet2DConditionModel.from_pretrained(out / "unet")
    assert 7 < sum(path.stat().st_size for path in out.rglob("*.safetensors")) / 2**20 < 8
    assert student.config.in_channels == 8 and student.config.cross_attention_dim == clip.DIM
    monkeypatch.setattr(one_step, "MOST_MIB", 1)
    with pytest.raises(SystemExit, match="^Too large to ship: 7.* MiB, 1 allowed"):
        one_step.export(student, out, facts, tmp_path / "one-step" / teacher.mark / "logs")
