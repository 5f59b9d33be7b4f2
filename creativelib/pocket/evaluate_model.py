"""Measure the parts of Pocket Kandinsky one by one: CLIP pair, autoencoder, decoder, memory, what it costs, how large it is."""

import platform
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from creativelib.generator import Generator, positive_prompt, with_article
from creativelib.metrics import pictures
from creativelib.pocket import autoencoder, clip, taxonomy, teachers
from creativelib.pocket.measured import Measured
from creativelib.pocket.sheets import sheet
from creativelib.prior_sampling import sample_prior
from creativelib.run import CreativeRun
from creativelib.spaces import make_space
from creativelib.typicality import TypicalityModel

ROUND_TRIPS = 192  # held-out pictures that are decoded from their embedding
MOST_QUERIES = 400  # labels that retrieval is asked for, of each split


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean cosine of matching rows."""
    return float(functional.cosine_similarity(a, b).mean())


def nearest(queries: torch.Tensor, pool: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine to, and index of, the nearest row of ``pool`` for each row of ``queries``."""
    best = (functional.normalize(queries, dim=-1) @ functional.normalize(pool, dim=-1).T).max(1)
    return best.values, best.indices


def measure_counts(measured: Measured) -> dict:
    """Pictures of each split, concepts, and (pictures, concepts) of each subject; the first sheet shows the corpus."""
    records = measured.records
    shown = np.random.default_rng(0)
    rows = [measured.rows(noun) for noun in measured.subjects]
    chosen = [i for row in rows for i in shown.choice(row, min(16, len(row)), replace=False)]
    sheet(measured.images[chosen], measured.sheets / "corpus.jpg", columns=16)
    return {
        **{split: sum(r["split"] == split for r in records) for split in sorted({r["split"] for r in records})},
        "concepts": len({record["concept"] for record in records}),
        "subjects": {
            noun: [len(row), len({records[i]["concept"] for i in row})]
            for noun, row in zip(measured.subjects, rows, strict=True)
        },
    }


def measure_clip(measured: Measured) -> dict:
    """Zero-shot accuracy over the eight subjects and over all nouns, and text-to-image retrieval@5 by label, per split."""
    generator, embeddings, records = measured.generator, measured.embeddings, measured.records
    nouns = sorted({record["nouns"][0] for record in records})
    table = {noun: generator.encode_text(positive_prompt(noun)).text_embedding for noun in nouns}
    result = {"nouns": len(nouns)}
    for split in ("held-out rendering", "held-out concept", "train"):
        index = measured.rows(split=split)
        subject_index = [i for i in index if records[i]["nouns"][0] in taxonomy.SUBJECTS]
        figures = {"images": len(index), "subject_images": len(subject_index)}
        for name, chosen, words in (("subjects", subject_index, list(taxonomy.SUBJECTS)), ("all_nouns", index, nouns)):
            texts = torch.cat([table[word] for word in words if word in table])
            known = [word for word in words if word in table]
            nearest_texts = clip.zero_shot(embeddings[chosen], texts).tolist()
            hits = [known[w] in records[i]["nouns"] for w, i in zip(nearest_texts, chosen, strict=True)]
            figures[f"zero_shot_{name}"] = float(np.mean(hits)) if hits else None
        result[split] = figures | _retrieval(generator, embeddings, records, index)
    return result


def _retrieval(generator: Generator, embeddings: torch.Tensor, records: list[dict], index: list[int]) -> dict:
    """Share of labels for which one of their pictures is among the five nearest of all pictures of the split."""
    labels = sorted({records[i]["label"] for i in index})[:MOST_QUERIES]
    if not labels:
        return {"retrieval_at_5": None, "retrieval_queries": 0, "retrieval_pool": 0}
    texts = torch.cat([generator.encode_text(f"a picture of {with_article(label)}").text_embedding for label in labels])
    scores = functional.normalize(texts, dim=-1) @ functional.normalize(embeddings[index], dim=-1).T
    top = scores.topk(min(5, len(index)), dim=1).indices.tolist()
    hits = [any(records[index[k]]["label"] == label for k in row) for label, row in zip(labels, top, strict=True)]
    return {"retrieval_at_5": float(np.mean(hits)), "retrieval_queries": len(top), "retrieval_pool": len(index)}


def measure_autoencoder(measured: Measured) -> dict:
    """PSNR and perceptual distance of reconstructed held-out renderings."""
    movq = measured.generator.decoder_pipeline.movq
    shown = measured.images[measured.rows(split="held-out rendering")]
    restored = autoencoder.decode(movq, autoencoder.encode(movq, shown))
    error = ((restored.astype(np.float64) - shown) ** 2).mean((1, 2, 3))
    distance = teachers.PerceptualDistance()
    with torch.no_grad():
        both = autoencoder.to_tensor(restored[:128]), autoencoder.to_tensor(shown[:128])
        pairs = [(a[None], b[None]) for a, b in zip(*both, strict=True)]
        values = [float(distance(a, b)) for a, b in pairs]
        others = [float(distance(a, pairs[(i + 7) % len(pairs)][1])) for i, (a, _) in enumerate(pairs)]
    return {
        "images": len(shown),
        "psnr_db": float(np.mean(10 * np.log10(255**2 / error))),
        "perceptual": float(np.mean(values)),
        "perceptual_of_unrelated_pictures": float(np.mean(others)),
    }


def measure_decoder(measured: Measured) -> dict:
    """Round trip of held-out embeddings: decoded, and embedded again."""
    embeddings, records = measured.embeddings, measured.records
    some = measured.rows(split="held-out rendering")[:ROUND_TRIPS]
    decoded = pictures.stack(measured.generator.decode(embeddings[some], seed=0))
    shown = measured.images[some]
    pairs = [np.concatenate([shown[r : r + 8], decoded[r : r + 8]]) for r in range(0, min(64, len(some)), 8)]
    sheet(np.concatenate(pairs), measured.sheets / "held_out_decodes.jpg")
    back = clip.embed_images(measured.image_encoder, decoded)
    by_concept: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        by_concept.setdefault(record["concept"], []).append(i)
    mates = [(i, j) for i in some for j in by_concept[records[i]["concept"]] if j != i]
    return {
        "images": len(some),
        "round_trip_cosine": cosine(embeddings[some], back),
        "same_concept_cosine": cosine(embeddings[[i for i, _ in mates]], embeddings[[j for _, j in mates]]),
        "any_two_cosine": cosine(embeddings[some], embeddings[some[1:] + some[:1]]),
    }


def measure_memory(measured: Measured) -> dict:
    """How near plain samples come to a training picture, on the image embedding of what was drawn."""
    embeddings, train, held = measured.embeddings, measured.rows(split="train"), measured.rows(split="held-out rendering")
    drawn = np.concatenate([measured.plain(noun).pictures for noun in measured.subjects])
    closeness, which = nearest(clip.embed_images(measured.image_encoder, drawn), embeddings[train])
    held_closeness, _ = nearest(embeddings[held], embeddings[train])
    mates = measured.images[[train[k] for k in which.tolist()]]
    order = closeness.argsort(descending=True)[:32].tolist()
    sheet([one for k in order for one in (drawn[k], mates[k])], measured.sheets / "nearest_training_images.jpg")
    return {
        "generated": len(drawn),
        "held_out": len(held),
        "cosine_generated": float(closeness.mean()),
        "cosine_held_out": float(held_closeness.mean()),
        "share_above_0.98": float((closeness > 0.98).float().mean()),
        "share_above_0.98_held_out": float((held_closeness > 0.98).float().mean()),
        "pixel_rmse_of_nearest": float(np.mean(((drawn.astype(np.float32) - mates) ** 2).mean((1, 2, 3)) ** 0.5)),
    }


def fastest(action: Callable[[], object], repeats: int) -> float:
    """Seconds that ``action()`` takes at its fastest: what else the machine does only ever adds."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def measure_cost(measured: Measured) -> dict:
    """Seconds, at the fastest of a few repeats, and the peak memory of the process so far."""
    generator, repeats, prompt = measured.generator, measured.amounts.repeats, positive_prompt("vehicle")
    drawn = []

    def sample() -> None:
        drawn[:] = [sample_prior(generator, prompt, n=measured.amounts.baseline, seed=0, progress=False).embeddings]

    seconds = fastest(sample, repeats)
    typicality = TypicalityModel.fit(drawn[0], provenance={"prompt": prompt})

    def search(steps: int = 10) -> None:
        CreativeRun(generator, "vehicle", make_space("lora", generator, "vehicle"), typicality).run(steps, progress=False)

    return {
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "prior_samples": len(drawn[0]),
        "prior_5000_seconds": seconds * 5000 / len(drawn[0]),
        "decode_16_seconds": fastest(lambda: generator.decode(drawn[0][:16], seed=0), repeats),
        "creative_step_seconds": fastest(search, repeats) / 10,
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def measure_files(measured: Measured) -> dict:
    """Sizes in MiB: of the model's largest file, of all of it but the sheets, and of the whole tree as git keeps it."""
    files = [p for p in measured.model.rglob("*") if p.is_file() and p.parent.name != "sheets"]
    sizes = [path.stat().st_size / 2**20 for path in files]
    return {"largest_mib": max(sizes), "model_mib": sum(sizes), "tree_mib": tree_size(measured.model)}


def tree_size(folder: Path) -> float | None:
    """MiB of all files that git keeps in the repository around ``folder``; None outside of one."""
    try:
        top = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=folder, capture_output=True, text=True, check=True)
        root = Path(top.stdout.strip())
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    paths = [root / name for name in listed.split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 2**20
