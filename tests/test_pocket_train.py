"""``make pocket`` from end to end, seconds instead of hours: every stage on a small made-up corpus, then the export loads."""

import json
from functools import partial

import numpy as np
import pytest
import torch

from creativelib import search
from creativelib.frameworks import pocket as one_step
from creativelib.generator import load_generator
from creativelib.pocket import checker_training, clip, decoder, one_step_pairs, pixels, prior, taxonomy, teachers, train
from creativelib.pocket import one_step as distilling
from creativelib.prior_sampling import sample_prior
from creativelib.pullback import load_checker

# fewer pictures a step than a stage learns from: two steps of so many would take a CPU as long as all the rest
BATCHES = {
    (clip, "train_text_encoder"): 8, (clip, "train_image_encoder"): 8, (prior, "train"): 8, (pixels, "train"): 4,
    (checker_training, "train"): 9,
}  # fmt: skip


def small_corpus(work):
    """Coloured discs and squares under the names of the eight subjects, in every split."""
    random = np.random.default_rng(0)
    images, records, drawings = [], [], []
    yy, xx = np.mgrid[:128, :128]
    for index in range(64):
        noun = taxonomy.SUBJECTS[index % 8]
        image = np.full((128, 128, 3), 255, np.uint8)
        x, y, size = random.integers(40, 88), random.integers(40, 88), random.integers(15, 35)
        round_one = (xx - x) ** 2 + (yy - y) ** 2 < size**2
        colour = random.integers(0, 200, 3)
        image[round_one if index % 2 else (abs(xx - x) < size) & (abs(yy - y) < size)] = colour
        images.append(image)
        fill = "#" + "".join(f"{value:02x}" for value in colour)
        shape = f'<circle cx="{x}" cy="{y}" r="{size}" fill="{fill}"/>'
        if index % 2 == 0:
            shape = f'<rect x="{x - size}" y="{y - size}" width="{2 * size}" height="{2 * size}" fill="{fill}"/>'
        drawings.append(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="6 6 116 116">{shape}</svg>')
        split = "held-out rendering" if index >= 52 else "train"
        record = {"concept": f"{noun}{index % 24}", "label": f"{noun} {index % 3}", "tags": ["thing"], "nouns": [noun]}
        records.append({**record, "set": "made", "style": "flat", "split": split})
    (work / "corpus").mkdir(parents=True)
    np.save(work / "corpus/images.npy", np.stack(images))
    (work / "corpus/records.json").write_text(json.dumps(records))
    (work / "corpus/drawings.json").write_text(json.dumps(drawings))


def test_every_stage_runs_and_the_export_draws(tmp_path, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out"
    small_corpus(work)
    monkeypatch.setattr(train, "check_sizes", lambda folder: None)  # its own test
    for (stage, name), batch in BATCHES.items():
        monkeypatch.setattr(stage, name, partial(getattr(stage, name), batch=batch))
    for stage in (decoder, distilling):
        monkeypatch.setitem(stage.BATCH, "cpu", 8)
    monkeypatch.setattr(one_step_pairs, "SAMPLES", 20)
    monkeypatch.setattr(search, "ANCHOR_SAMPLES", 50)  # how well anything is measured or drawn is not asked here
    monkeypatch.setitem(train.DEFAULTS, "decoder_steps", 2)
    words = sorted(teachers.vocabulary())[::60]  # of 30,000, each of which is read
    monkeypatch.setattr(teachers, "vocabulary", lambda: words)
    monkeypatch.setattr("sys.argv", ["train", "--work", str(work), "--out", str(out), "--budget", "test", "--device", "cpu"])
    (out / "logs").mkdir(parents=True)
    (out / "logs/a-stage-that-is-no-more.csv").write_text("step,seconds\n")
    train.main()
    generator = load_generator(str(out), device="cpu")
    embeddings = sample_prior(generator, "a photo of a chair", n=2, progress=False).embeddings
    pictures = generator.decode(embeddings, steps=2)
    assert [picture.size for picture in pictures] == [(128, 128)] * 2 and torch.isfinite(embeddings).all()
    verdict = load_checker(out / "checker", device="cpu").check(pictures[0], "chair")
    assert 0 <= verdict.probability <= 1
    pipeline, eyes = one_step.assemble(out, tmp_path / "out-one-step")
    picture = pipeline("a chair", num_inference_steps=1, guidance_scale=0, eta=1.0, generator=torch.Generator().manual_seed(1))
    assert picture.images[0].size == (128, 128)
    facts = json.loads((tmp_path / "out-one-step/one_step.json").read_text())
    assert (facts["pairs"], facts["steps"]) == (4, 2) and set(facts["measured"]["judge"]) == set(taxonomy.SUBJECTS)
    facts["learned_from"]["text"] = "0"  # trained with another one
    (tmp_path / "out-one-step/one_step.json").write_text(json.dumps(facts))
    with pytest.raises(OSError, match="one-step was trained with another prior/text_encoder than .*out has; run the stage"):
        one_step.assemble(out, tmp_path / "out-one-step")
    steps = json.loads((out / "training.json").read_text())["steps"]
    assert set(steps) == {path.stem for path in (out / "logs").glob("*.csv")} and "a-stage-that-is-no-more" not in steps
