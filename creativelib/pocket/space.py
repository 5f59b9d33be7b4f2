"""The embedding space of Pocket Kandinsky: what a picture shows, and what it looks like, in 320 numbers.

Nine thousand drawings are too few to learn from scratch what things look like, so a small network reads two finished
descriptions of a picture: what an ImageNet network sees in it (pooled features), and its own latents (layout and colour). It
is trained so that

- a picture lies near the words for it (multi-positive contrastive loss against sentence embeddings of its captions),
- both descriptions can be read back from the embedding, the latents by a *linear* map: what the decoder has to paint is
  then one matrix away from what it is given. With a read-out of a 16 x 16 thumbnail by a network instead, a regression
  from the embedding explained half of the latents of held-out renderings, and the decoder learned to listen slowly.

The text and the image encoder (``clip``) are then trained to land in this space.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from creativelib.pocket import captions, teachers, training
from creativelib.pocket.worlds import Worlds

DIM = 320
LATENTS_WEIGHT = 2.0  # of the read-back of the latents beside the contrastive loss and that of the features


class Space(nn.Module):
    """The projection of the two descriptions of a picture, and the read-outs that keep it informative."""

    def __init__(self, features: int, latents: int, sentence: int = 384):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.encode_features = nn.Sequential(nn.Linear(features, 768), nn.GELU(), nn.Dropout(0.1))
        self.encode_latents = nn.Sequential(nn.Linear(latents, 1024), nn.GELU(), nn.Dropout(0.1))
        self.project = nn.Sequential(nn.LayerNorm(1792), nn.Linear(1792, 1024), nn.GELU(), nn.Linear(1024, DIM))
        self.shortcut = nn.Linear(latents, DIM)  # what is read back linearly is best written linearly
        self.read_features = nn.Sequential(nn.Linear(DIM, 768), nn.GELU(), nn.Linear(768, features))
        self.read_latents = nn.Linear(DIM, latents)
        self.read_sentence = nn.Sequential(nn.Linear(sentence, 768), nn.GELU(), nn.Linear(768, DIM))
        self.log_temperature = nn.Parameter(torch.tensor(2.3))

    def forward(self, features: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, 320), unit length times sqrt(320), of standardised features (N, f) and flat latents (N, l)."""
        hidden = torch.cat([self.encode_features(self.norm(features)), self.encode_latents(latents)], -1)
        return functional.normalize(self.project(hidden) + self.shortcut(latents), dim=-1) * DIM**0.5


def contrastive_loss(logits: torch.Tensor, concepts: torch.Tensor, nouns: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways of logits (N, N); a picture belongs to every caption of its concept, and a little to those
    of its noun. concepts: (N,) ids; nouns: (N, number of nouns), 0 or 1.
    """
    target = (concepts[:, None] == concepts[None]).float() + 0.15 * (nouns @ nouns.T > 0).float()
    target = (target / target.sum(1, keepdim=True)).to(logits.device)
    return 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))


def meanings(records: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Concept ids (N,) and nouns (N, number of nouns) of the records, for ``contrastive_loss``; a picture without a label is
    a concept of its own.
    """
    labels = [record.get("label", row) for row, record in enumerate(records)]
    concept_ids = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    noun_ids = {noun: i for i, noun in enumerate(sorted({noun for record in records for noun in record["nouns"]}))}
    nouns = torch.zeros(len(records), len(noun_ids))
    for row, record in enumerate(records):
        nouns[row, [noun_ids[noun] for noun in record["nouns"]]] = 1
    return torch.tensor([concept_ids[label] for label in labels]), nouns


def train(
    worlds: Worlds,
    features: torch.Tensor,
    latents: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 256,
    seed: int = 0,
) -> None:
    """Train the space on both worlds and write it to ``work/space.pt``; ``embeddings`` reads it.

    features: (rows, 1280); latents: (rows, 8, 16, 16). A possible picture is named by the nouns that still hold; one of which
    none holds has no words, and only its descriptions are read back.
    """
    flat, named = latents.flatten(1), torch.tensor([bool(record["nouns"]) for record in worlds.records])
    kept = [record for record, typical in zip(worlds.records, worlds.typical.tolist(), strict=True) if typical]
    mean, std = features[worlds.typical].float().mean(0), features[worlds.typical].float().std(0) + 1e-3
    concepts, nouns = meanings(worlds.records)
    phrases = captions.all_phrases(kept)
    row_of = {phrase: i for i, phrase in enumerate(phrases)}
    sentences = teachers.sentence_features(phrases)
    torch.manual_seed(seed)
    model = Space(features.shape[-1], flat.shape[-1], sentences.shape[-1]).to(device)

    def loss_of(model: Space, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = worlds.draw(batch, generator)
        seen, look = ((features[rows].float() - mean) / std).to(device), flat[rows].to(device).float()
        jitter = 0.2 * torch.randn(seen.shape, generator=generator).to(device)
        embedding = model(seen + jitter, look)
        noisy = embedding + 0.15 * torch.randn(embedding.shape, generator=generator).to(device)
        feature_loss = functional.mse_loss(model.read_features(noisy), seen)
        latent_loss = functional.mse_loss(model.read_latents(noisy), look)
        rows, embedding = rows[named[rows]], embedding[named[rows].to(device)]
        said = [row_of[captions.name_of(worlds.records[row], generator)] for row in rows.tolist()]
        text = functional.normalize(model.read_sentence(sentences[said].to(device)), dim=-1)
        scale = model.log_temperature.clamp(max=3.4).exp()
        contrastive = contrastive_loss(scale * text @ functional.normalize(embedding, dim=-1).T, concepts[rows], nouns[rows])
        loss = contrastive + feature_loss + LATENTS_WEIGHT * latent_loss
        figures = {"contrastive": contrastive, "features": feature_loss, "latents": latent_loss}
        return loss, {name: float(value.detach()) for name, value in figures.items()}

    training.train("space", model, loss_of, work=work, steps=steps, peak_lr=1e-3, seed=seed, weight_decay=0.05)
    torch.save({k: v.cpu() for k, v in model.state_dict().items()} | {"mean": mean, "std": std}, work / "space.pt")


@torch.no_grad()
def embeddings(path: Path, features: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Embeddings (N, 320) by the trained space in ``path``, of features (N, f) and latents (N, 8, 16, 16)."""
    state = torch.load(path, weights_only=True)
    mean, std = state.pop("mean"), state.pop("std")
    rotation = state.pop("rotation", torch.eye(DIM))
    model = Space(features.shape[-1], latents[0].numel())
    model.load_state_dict(state)
    model.eval()
    chunks = zip(features.split(512), latents.flatten(1).split(512), strict=True)
    return torch.cat([model((seen.float() - mean) / std, look.float()) @ rotation for seen, look in chunks])


def turn_towards(path: Path, found: torch.Tensor, known: torch.Tensor) -> None:
    """Rotate a trained space (orthogonal Procrustes) so that its embeddings ``found`` (N, 320) lie near ``known`` (N, 320).

    Embeddings of an earlier generation, for instance: what was trained on that can then go on from its weights. The rotation is
    kept in ``path``.
    """
    left, _, right = torch.linalg.svd(found.double().T @ known.double())
    state = torch.load(path, weights_only=True)
    state["rotation"] = (state.get("rotation", torch.eye(DIM)).double() @ left @ right).float()
    torch.save(state, path)
