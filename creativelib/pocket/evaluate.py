"""Measure Pocket Kandinsky on held-out data: ``python -m creativelib.pocket.evaluate`` (``make pocket-evaluate``).

Writes ``evaluation.json`` (every number), ``sheets/*.jpg`` (contact sheets) and ``MODEL_CARD.md`` (made from the JSON) beside
the shipped model. Everything is measured on the *shipped* half-precision files through the same classes that users load.
"""

import argparse
import json
import platform
import resource
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from vendi_score import vendi

from creativelib.generator import Generator, load_generator, positive_prompt, with_article
from creativelib.pocket import autoencoder, checker, clip, corpus, judge, model_card, taxonomy, teachers
from creativelib.pocket.train import write_checksums
from creativelib.prior_sampling import sample_prior

SAMPLES = 200


def sheet(images, path: Path, columns: int = 8, side: int = 96) -> None:
    """Save pictures as a contact sheet of ``columns`` columns."""
    small = [Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.LANCZOS) for image in images]
    rows = -(-len(small) // columns)
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for index, image in enumerate(small):
        page.paste(image, (index % columns * side, index // columns * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=88)


def arrays(pictures) -> np.ndarray:
    """PIL pictures to uint8 (N, 128, 128, 3)."""
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean cosine of matching rows."""
    return float(functional.cosine_similarity(a, b).mean())


def measure_clip(generator: Generator, embeddings: torch.Tensor, records: list[dict]) -> dict:
    """Zero-shot accuracy over the eight subjects and over all nouns, and text-to-image retrieval@5 by label, per split."""
    nouns = sorted({record["nouns"][0] for record in records})
    table = {noun: generator.encode_text(positive_prompt(noun)).text_embedding for noun in nouns}
    result = {"nouns": len(nouns)}
    for split in ("held-out rendering", "held-out concept", "train"):
        index = [i for i, record in enumerate(records) if record["split"] == split]
        subject_index = [i for i in index if records[i]["nouns"][0] in taxonomy.SUBJECTS]
        figures = {"images": len(index), "subject_images": len(subject_index)}
        for name, chosen, words in (("subjects", subject_index, list(taxonomy.SUBJECTS)), ("all_nouns", index, nouns)):
            texts = torch.cat([table[word] for word in words])
            nearest_texts = clip.zero_shot(embeddings[chosen], texts).tolist()
            hits = [words[w] in records[i]["nouns"] for w, i in zip(nearest_texts, chosen, strict=True)]
            figures[f"zero_shot_{name}"] = float(np.mean(hits))
        labels = sorted({records[i]["label"] for i in index})
        texts = torch.cat(
            [generator.encode_text(f"a picture of {with_article(label)}").text_embedding for label in labels[:400]]
        )
        scores = functional.normalize(texts, dim=-1) @ functional.normalize(embeddings[index], dim=-1).T
        top = scores.topk(min(5, len(index)), dim=1).indices.tolist()
        figures["retrieval_at_5"] = float(
            np.mean([any(records[index[k]]["label"] == label for k in row) for label, row in zip(labels, top, strict=False)])
        )
        figures["retrieval_queries"] = len(top)
        figures["retrieval_pool"] = len(index)
        result[split] = figures
    return result


def measure_autoencoder(generator: Generator, images: np.ndarray, index: list[int]) -> dict:
    """PSNR and perceptual distance of reconstructed held-out pictures."""
    movq = generator.decoder_pipeline.movq
    pictures = images[index]
    restored = autoencoder.decode(movq, autoencoder.encode(movq, pictures))
    error = ((restored.astype(np.float64) - pictures) ** 2).mean((1, 2, 3))
    distance = teachers.PerceptualDistance()
    with torch.no_grad():
        both = autoencoder.to_tensor(restored[:128]), autoencoder.to_tensor(pictures[:128])
        pairs = [(a[None], b[None]) for a, b in zip(*both, strict=True)]
        values = [float(distance(a, b)) for a, b in pairs]
        others = [float(distance(a, pairs[(i + 7) % len(pairs)][1])) for i, (a, _) in enumerate(pairs)]
    return {
        "images": len(index),
        "psnr_db": float(np.mean(10 * np.log10(255**2 / error))),
        "perceptual": float(np.mean(values)),
        "perceptual_of_unrelated_pictures": float(np.mean(others)),
    }


def judge_on_the_way(
    generator: Generator, the_judge: judge.Judge, real: np.ndarray, embeddings: torch.Tensor, noun: str
) -> dict:
    """Where a subject gets lost: the judge on real pictures after the autoencoder alone, and decoded from their embeddings."""
    if not len(real):
        return {"judge_on_autoencoded": None, "judge_on_decoded": None}
    movq = generator.decoder_pipeline.movq
    autoencoded = autoencoder.decode(movq, autoencoder.encode(movq, real))
    decoded = arrays(generator.decode(embeddings, seed=3))
    return {
        "judge_on_autoencoded": float(np.mean(the_judge.is_subject(autoencoded, noun))),
        "judge_on_decoded": float(np.mean(the_judge.is_subject(decoded, noun))),
    }


def nearest(queries: torch.Tensor, pool: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine to, and index of, the nearest row of ``pool`` for each row of ``queries``."""
    best = (functional.normalize(queries, dim=-1) @ functional.normalize(pool, dim=-1).T).max(1)
    return best.values, best.indices


def timed(action) -> tuple[float, object]:
    """Seconds that ``action()`` takes, and what it returns."""
    begun = time.perf_counter()
    result = action()
    return time.perf_counter() - begun, result


def evaluate(work: Path, out: Path, samples: int = SAMPLES) -> dict:
    """Everything of the model card as one dictionary; writes the sheets on the way."""
    images, records = corpus.load(work)
    generator = load_generator(str(out))
    the_judge = judge.Judge.load(out / "judge")
    checking = checker.load(out / "checker")
    sheets = out / "sheets"
    held = [i for i, record in enumerate(records) if record["split"] == "held-out rendering"]
    train = [i for i, record in enumerate(records) if record["split"] == "train"]
    result = {"counts": {split: sum(r["split"] == split for r in records) for split in sorted({r["split"] for r in records})}}
    result["counts"]["concepts"] = len({record["concept"] for record in records})
    result["counts"]["subjects"] = {
        noun: [sum(noun in r["nouns"] for r in records), len({r["concept"] for r in records if noun in r["nouns"]})]
        for noun in taxonomy.SUBJECTS
    }
    result["training"] = json.loads((out / "training.json").read_text())
    result["machine"] = (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )

    shown = np.random.default_rng(0)
    rows = [[i for i, r in enumerate(records) if noun in r["nouns"]] for noun in taxonomy.SUBJECTS]
    sheet([images[i] for row in rows for i in shown.choice(row, 16, replace=False)], sheets / "corpus.jpg", columns=16)

    embeddings = clip.embed_images(generator.prior_pipeline.image_encoder, images)
    result["clip"] = measure_clip(generator, embeddings, records)
    result["autoencoder"] = measure_autoencoder(generator, images, held)

    # decoder: round trip of held-out embeddings
    some = held[: 3 * 64]
    decoded = arrays(generator.decode(embeddings[some], seed=0))
    sheet(
        np.concatenate([np.stack([images[i] for i in some[r : r + 8]] + list(decoded[r : r + 8])) for r in range(0, 64, 8)]),
        sheets / "held_out_decodes.jpg",
    )
    back = clip.embed_images(generator.prior_pipeline.image_encoder, decoded)
    by_concept: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        by_concept.setdefault(record["concept"], []).append(i)
    mates = [(i, j) for i in some for j in by_concept[records[i]["concept"]] if j != i]
    result["decoder"] = {
        "images": len(some),
        "round_trip_cosine": cosine(embeddings[some], back),
        "same_concept_cosine": cosine(embeddings[[i for i, _ in mates]], embeddings[[j for _, j in mates]]),
        "any_two_cosine": cosine(embeddings[some], embeddings[some[1:] + some[:1]]),
    }

    # judge on real held-out pictures, then judge and checker on prior samples
    result["prior"], generated = {}, {}
    for noun in taxonomy.SUBJECTS:
        drawn = sample_prior(generator, positive_prompt(noun), n=samples, seed=1, progress=False).embeddings
        pictures = arrays(generator.decode(drawn, seed=2))
        generated[noun] = (drawn, pictures)
        sheet(pictures[:64], sheets / f"samples_{noun}.jpg")
        real_all = [i for i, record in enumerate(records) if noun in record["nouns"]]
        real = [i for i in real_all if records[i]["split"] != "train"]
        pca = PCA().fit(drawn.numpy())
        kept = np.cumsum(pca.explained_variance_ratio_)
        unit = functional.normalize(drawn, dim=-1).numpy()
        unit_real = functional.normalize(embeddings[real_all], dim=-1).numpy()
        concepts = nearest(drawn, embeddings[real_all])[1].tolist()
        result["prior"][noun] = {
            "samples": samples,
            "judge": float(np.mean(the_judge.is_subject(pictures, noun))),
            "judge_on_real_held_out": float(np.mean(the_judge.is_subject(images[real], noun))) if real else None,
            "real_held_out": len(real),
            **judge_on_the_way(generator, the_judge, images[real], embeddings[real], noun),
            "checker": float((checker.probability_of_yes(checking, pictures, [noun] * len(pictures)) > 0.5).mean()),
            "variance": float(drawn.var(0).sum()),
            "variance_real": float(embeddings[real_all].var(0).sum()),
            "vendi": float(vendi.score_dual(unit, normalize=False)),
            "vendi_real": float(vendi.score_dual(unit_real, normalize=False)),
            "concepts_nearest": len({records[real_all[c]]["concept"] for c in concepts}),
            "dims_for_95_percent": int(np.searchsorted(kept, 0.95) + 1),
            "variance_in_50_dims": float(kept[min(49, len(kept) - 1)]),
        }

    # checker: real and generated, right and wrong subjects
    rng = np.random.default_rng(0)
    answers = {}
    subject_of = {i: records[i]["nouns"][0] for i in held if records[i]["nouns"][0] in taxonomy.SUBJECTS}
    for kind in ("real", "generated"):
        if kind == "real":
            pictures, truth = images[list(subject_of)], list(subject_of.values())
        else:
            pictures = np.concatenate([generated[noun][1][:25] for noun in taxonomy.SUBJECTS])
            truth = [noun for noun in taxonomy.SUBJECTS for _ in range(25)]
        wrong = [str(rng.choice([s for s in taxonomy.SUBJECTS if s != noun])) for noun in truth]
        yes = checker.probability_of_yes(checking, pictures, truth)
        no = checker.probability_of_yes(checking, pictures, wrong)
        labels = np.r_[np.ones(len(yes)), np.zeros(len(no))]
        answers[kind] = {
            "questions": len(labels),
            "accuracy": float(np.mean(np.r_[yes > 0.5, no <= 0.5])),
            "roc_auc": float(roc_auc_score(labels, np.r_[yes, no])),
        }
    result["checker"] = answers

    # memorisation, on the image embedding of what was drawn
    everything = np.concatenate([pictures for _, pictures in generated.values()])
    seen = clip.embed_images(generator.prior_pipeline.image_encoder, everything)
    closeness, which = nearest(seen, embeddings[train])
    held_closeness, _ = nearest(embeddings[held], embeddings[train])
    pixels = [
        float(((everything[k].astype(float) - images[train[which[k]]]) ** 2).mean() ** 0.5) for k in range(len(everything))
    ]
    order = closeness.argsort(descending=True)[:32].tolist()
    sheet(
        [picture for k in order for picture in (everything[k], images[train[which[k]]])], sheets / "nearest_training_images.jpg"
    )
    result["memorisation"] = {
        "generated": len(everything),
        "held_out": len(held),
        "cosine_generated": float(closeness.mean()),
        "cosine_held_out": float(held_closeness.mean()),
        "share_above_0.98": float((closeness > 0.98).float().mean()),
        "share_above_0.98_held_out": float((held_closeness > 0.98).float().mean()),
        "pixel_rmse_of_nearest": float(np.mean(pixels)),
    }

    # time and memory
    prompt = positive_prompt("vehicle")
    seconds, drawn = timed(lambda: sample_prior(generator, prompt, n=5000, steps=5, guidance=2.0, seed=0, progress=False))
    decode_seconds, _ = timed(lambda: generator.decode(drawn.embeddings[:16], seed=0))
    result["cost"] = {
        "prior_5000_seconds": seconds,
        "decode_16_seconds": decode_seconds,
        "creative_step_seconds": measure_creative_step(generator, drawn.embeddings),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }
    return result


def measure_creative_step(generator: Generator, baseline: torch.Tensor, steps: int = 10) -> float:
    """Mean seconds of one step of a creative run (LoRA, creative and anchor loss, no checker)."""
    from creativelib.run import CreativeRun
    from creativelib.spaces import make_space
    from creativelib.typicality import TypicalityModel

    run = CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), TypicalityModel.fit(baseline))
    seconds, _ = timed(lambda: run.run(steps, progress=False))
    return seconds / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("build/pocket"), help="work folder with the corpus (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("data/pocket"), help="the shipped model (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="prior samples of each subject (default: %(default)s)")
    options = parser.parse_args()
    result = evaluate(options.work, options.out, options.samples)
    (options.out / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "MODEL_CARD.md").write_text(model_card.render(result))
    write_checksums(options.out)
    print(model_card.render(result))


if __name__ == "__main__":
    main()
