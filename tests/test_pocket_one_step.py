"""The one-step model's training: what its teacher draws is a function of the noise, is kept, and teaches."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from creativelib.frameworks import eight_bits, pocket
from creativelib.pocket import autoencoder, clip, decoder, one_step, one_step_pairs, taxonomy
from creativelib.pocket.one_step_pairs import SHAPE, Cloud, Teacher
from creativelib.text import positive_prompt


@pytest.fixture(scope="module")
def teacher():
    """Of random weights, with one step of the decoder."""
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = decoder.build()
    coarse = {"weight": 0.05 * torch.randn(2048, clip.DIM, generator=source), "bias": torch.zeros(2048)}
    coarse |= {"low": torch.full((2048,), -3.0), "high": torch.full((2048,), 3.0)}
    clouds = {}
    for number, subject in enumerate(taxonomy.SUBJECTS):
        samples = number + torch.randn(400, clip.DIM, generator=source) * torch.linspace(2, 0.5, clip.DIM)
        clouds[positive_prompt(subject)] = Cloud.fit(torch.randn(24, clip.DIM, generator=source), samples)
    return Teacher(clouds, unet, coarse, torch.zeros(1, clip.DIM), "cpu", 1, 2.5, {"prior": "a", "decoder": "b"})


def test_a_cloud_is_the_gaussian_of_its_samples_and_turns_nothing():
    source = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=source)
    samples = 3 + torch.randn(20_000, 6, generator=source) @ mixing
    cloud = Cloud.fit(torch.zeros(2, 4), samples)
    drawn = cloud.mean + torch.randn(20_000, 6, generator=source) @ cloud.root
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(samples.T), atol=0.4, rtol=0.05)
    torch.testing.assert_close(drawn.mean(0), samples.mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(cloud.root, cloud.root.T, atol=1e-4, rtol=0)
    assert torch.linalg.eigvalsh(cloud.root.double()).min() >= -1e-5


def test_patterns_lie_nearest_to_what_they_paint():
    source = torch.Generator().manual_seed(0)
    matrix = torch.randn(2048, clip.DIM, generator=source) * torch.linspace(2, 0.1, clip.DIM)
    patterns = one_step_pairs.noise_patterns(matrix)
    torch.testing.assert_close(patterns.T @ patterns, torch.eye(clip.DIM), atol=1e-4, rtol=0)
    change = patterns.T @ matrix  # a noise is only made larger or smaller where it lies, nowhere turned
    torch.testing.assert_close(change, change.T, atol=1e-3, rtol=1e-3)
    assert torch.linalg.eigvalsh(change.double()).min() > -1e-4
    painted = matrix @ torch.randn(clip.DIM, 500, generator=source)  # and nothing that is painted lies outside of them
    torch.testing.assert_close(patterns @ (patterns.T @ painted), painted, atol=1e-3, rtol=1e-3)


def test_the_teacher_is_a_function_of_the_noise(teacher):
    noise = torch.randn(2, 2, *SHAPE, generator=torch.Generator().manual_seed(1))
    texts = [positive_prompt(subject) for subject in ("vehicle", "fruit")]
    drawn = teacher.draw(texts, noise)
    assert drawn.shape == noise.shape and torch.equal(drawn, teacher.draw(texts, noise))
    apart = teacher.draw(texts[1:], noise[1:, 1:])[0, 0]  # alone, and beside others
    assert (apart - drawn[1, 1]).norm() < 0.02 * drawn[1, 1].norm()
    assert (drawn[0, 0] - drawn[0, 1]).abs().max() > 0.1
    assert (teacher.noise.flatten(1) @ teacher.patterns).abs().max() < 1e-4  # the decoder's own noise paints nothing
    free = torch.randn(2048, generator=torch.Generator().manual_seed(2))
    free = free - teacher.patterns @ (teacher.patterns.T @ free)  # what no pattern carries changes nothing
    assert (teacher.draw(texts, noise + free.view(SHAPE)) - drawn).norm() < 0.02 * drawn.norm()


def test_embeddings_have_the_mean_and_the_spread_of_their_text(teacher):
    noise = torch.randn(1, 4000, *SHAPE, generator=torch.Generator().manual_seed(1))
    for text, cloud in list(teacher.clouds.items())[:2]:
        found = teacher.embeddings([text], noise)[0]
        torch.testing.assert_close(found.mean(0), cloud.mean, atol=0.2, rtol=0)
        torch.testing.assert_close(found.var(0), (cloud.root @ cloud.root).diagonal(), atol=0.1, rtol=0.15)


def test_pairs_are_made_once_and_made_again_where_one_is_lost(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(one_step_pairs, "TEXTS", 2)
    monkeypatch.setattr(one_step_pairs, "SEEDS", 2)
    first = one_step_pairs.make_pairs(teacher, 7, tmp_path, seed=3)
    assert len(first) == 8 and first.texts[0] == first.texts[1] and first.noise.shape == first.latents.shape
    assert len({text for text in first.texts}) > 1 and len(list(tmp_path.iterdir())) == 2

    class Idle:
        clouds = teacher.clouds

        def draw(self, texts, noise):
            raise AssertionError("drawn again")

    again = one_step_pairs.make_pairs(Idle(), 7, tmp_path, seed=3)
    assert again.texts == first.texts and torch.equal(again.latents, first.latents)
    (tmp_path / "00001.safetensors").unlink()
    again = one_step_pairs.make_pairs(teacher, 7, tmp_path, seed=3)
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
    text = clip.build_text_encoder(clip.train_tokenizer(["vehicle", "fruit"]))
    text.save_pretrained(tmp_path / "prior" / "text_encoder")
    monkeypatch.setattr(one_step_pairs.Teacher, "load", lambda folder, device: teacher)
    out = tmp_path / "student"
    one_step.distil(tmp_path, tmp_path, out, count=8, steps=2)
    facts = json.loads((out / "one_step.json").read_text())
    assert facts["measured"]["judge"]["fruit"] == {"student": 1.0, "teacher": 1.0} and facts["pairs"] == 6
    assert 0 < facts["measured"]["unexplained"] and facts["learned_from"] == pocket.marks(movq, text)
    student = eight_bits.load_unet(out / "unet")
    assert 3.5 < sum(path.stat().st_size for path in out.rglob("*.safetensors")) / 2**20 < 4.5
    assert student.config.in_channels == 8 and student.config.cross_attention_dim == clip.DIM
    card = (out / "MODEL_CARD.md").read_text()
    assert "6 pairs of noise and picture, 2 steps" in card and card.count("| 100% | 100% |") == 9
    assert f"the teacher drew in {teacher.decoder_steps} steps at guidance {teacher.decoder_guidance:g}." in card
    assert Image.open(out / "sheet.jpg").size == (128, 8 * 128)  # one picture of each subject was judged
    monkeypatch.setattr(one_step, "MOST_MIB", 1)
    with pytest.raises(SystemExit, match="^Too large to ship: [34].* MiB, 1 allowed"):
        one_step.export(student, out, facts, np.zeros((8, 8, 3), np.uint8), tmp_path / "one-step" / teacher.mark / "logs")
