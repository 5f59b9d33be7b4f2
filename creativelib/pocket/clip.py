"""The CLIP pair of Pocket Kandinsky: a text and an image encoder into one space of 320 dimensions.

Made in two steps, because nine thousand drawings are too few to learn from scratch what things look like:

1. *The space.* A small projection of what an ImageNet network sees (its pooled features) and of a 16 x 16 thumbnail (layout
   and colour) is trained together with the text encoder: multi-positive contrastive loss (a drawing matches every caption of
   its concept, and of its noun), plus reconstruction of both inputs from the embedding, so that the embedding keeps what
   the picture looks like and not only what it shows. A linear read-out of sentence embeddings puts unseen words near
   known ones.
2. *The image encoder.* A vision transformer learns to produce those embeddings from pixels alone.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from creativelib.pocket import captions, corpus, teachers, training
from creativelib.pocket.autoencoder import to_tensor

DIM = 320
MAX_TOKENS = 32
VOCABULARY = 6144
IMAGE_MEAN = IMAGE_STD = [0.5, 0.5, 0.5]
CLIP_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def train_tokenizer(phrases: list[str]) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE) whose vocabulary is made from ``phrases``; any text tokenises, rare words in pieces."""
    trainer_model = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trainer_model.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    trainer_model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer_model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    templates = [template.format(a="a", x="") for template in captions.TEMPLATES]
    trainer_model.train_from_iterator(phrases + 50 * templates + ["a an the of"] * 50, trainer)
    state = json.loads(trainer_model.to_str())["model"]
    vocabulary = dict(sorted(state["vocab"].items(), key=lambda item: item[1]))
    for byte in pre_tokenizers.ByteLevel.alphabet():  # every byte, inside and at the end of a word
        for token in (byte, byte + "</w>"):
            vocabulary.setdefault(token, len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in state["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """A new text encoder; pooled at the end-of-text token by its true id (never 2, which pools at the largest id)."""
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=DIM,
            intermediate_size=2 * DIM,
            num_hidden_layers=3,
            num_attention_heads=5,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=DIM,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """A new image encoder: 128 px in patches of 16, 5 layers of width 256."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=5,
            num_attention_heads=4,
            image_size=corpus.SIZE,
            patch_size=16,
            projection_dim=DIM,
        )
    )


def image_processor() -> CLIPImageProcessor:
    """Resize to 128 px and scale to [-1, 1]: mid grey is the zero image that diffusers' pipelines take as *unconditional*."""
    size = {"height": corpus.SIZE, "width": corpus.SIZE}
    return CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False, image_mean=IMAGE_MEAN, image_std=IMAGE_STD)


def thumbnails(images: np.ndarray, side: int = 16) -> torch.Tensor:
    """Pictures (N, 128, 128, 3) uint8 averaged to side x side, flat, in [-1, 1]: (N, 3 * side * side)."""
    step = corpus.SIZE // side
    small = images.reshape(len(images), side, step, side, step, 3).mean((2, 4), dtype=np.float32)
    return torch.from_numpy(small / 127.5 - 1).flatten(1)


def cached_features(images: np.ndarray, path: Path, device: str) -> torch.Tensor:
    """ImageNet features (N, 1280) of the pictures, kept in ``path``: they take minutes on a CPU."""
    if not path.exists():
        torch.save(teachers.image_features(images, 0, corpus.SIZE, device), path)
    return torch.load(path, weights_only=True)


class Space(nn.Module):
    """The joint space: projection of the teacher's view of a picture, and the read-outs that keep it informative."""

    def __init__(self, features: int, thumbnail: int, sentence: int = 384):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.encode_features = nn.Sequential(nn.Linear(features, 768), nn.GELU(), nn.Dropout(0.1))
        self.encode_thumbnail = nn.Sequential(nn.Linear(thumbnail, 768), nn.GELU())
        self.project = nn.Sequential(nn.LayerNorm(1536), nn.Linear(1536, 768), nn.GELU(), nn.Linear(768, DIM))
        self.read_features = nn.Sequential(nn.Linear(DIM, 768), nn.GELU(), nn.Linear(768, features))
        self.read_thumbnail = nn.Sequential(nn.Linear(DIM, 768), nn.GELU(), nn.Linear(768, thumbnail))
        self.read_sentence = nn.Linear(DIM, sentence)
        self.log_temperature = nn.Parameter(torch.tensor(2.3))

    def forward(self, features: torch.Tensor, thumbnail: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, 320), unit length times sqrt(320), of features (N, f) and thumbnails (N, t)."""
        hidden = torch.cat([self.encode_features(self.norm(features)), self.encode_thumbnail(thumbnail)], -1)
        return functional.normalize(self.project(hidden), dim=-1) * DIM**0.5


class Joint(nn.Module):
    """What step 1 trains."""

    def __init__(self, text_encoder: CLIPTextModelWithProjection, space: Space):
        super().__init__()
        self.text_encoder, self.space = text_encoder, space


def views(images: np.ndarray) -> list[np.ndarray]:
    """Each picture as it is, and mirrored and moved a few pixels: two arrays like ``images``."""
    moved = np.full_like(images, 255)
    moved[:, 3:, 4:] = images[:, :-3, :-4]
    return [images, np.ascontiguousarray(moved[:, :, ::-1])]


def initialise_tokens(text_encoder: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer) -> None:
    """Start whole-word tokens from their sentence embedding, so that words which no caption holds have sensible neighbours."""
    table = text_encoder.get_input_embeddings().weight
    words = {
        i: token[:-4]
        for token, i in tokenizer.get_vocab().items()
        if token.endswith("</w>") and re.fullmatch(r"[a-z]{3,}</w>", token)
    }
    features = teachers.sentence_features(list(words.values()))
    features = features - features.mean(0)
    directions = torch.linalg.eigh(features.T @ features).eigenvectors  # their principal directions, the last one first
    start = features @ directions.flip(1)[:, :DIM]
    with torch.no_grad():
        table[list(words)] = start / start.std() * 0.02


def train_space(images: np.ndarray, records: list[dict], work: Path, device: str, steps: int, batch: int = 96, seed: int = 0):
    """Step 1. Returns tokenizer, text encoder, and the teacher embeddings (views, N, 320) of *all* pictures.

    Only records of the training split are drawn from; the held-out ones are embedded, never learned from.
    """
    work = Path(work)
    shots = views(images)
    features = torch.stack([cached_features(shot, work / f"features-lite0-view{v}.pt", device) for v, shot in enumerate(shots)])
    thumbs = torch.stack([thumbnails(shot) for shot in shots])
    training_index = torch.tensor([i for i, record in enumerate(records) if record["split"] == "train"])
    mean, std = features[0][training_index].mean(0), features[0][training_index].std(0) + 1e-3
    features = (features - mean) / std

    kept = [records[i] for i in training_index.tolist()]
    phrases = captions.all_phrases(kept)
    tokenizer = train_tokenizer(phrases)
    torch.manual_seed(seed)
    text_encoder = build_text_encoder(tokenizer)
    initialise_tokens(text_encoder, tokenizer)
    sentences = teachers.sentence_features(phrases)
    phrase_ids = tokenizer(phrases, padding="max_length", max_length=12, truncation=True, return_tensors="pt").input_ids
    model = Joint(text_encoder, Space(features.shape[-1], thumbs.shape[-1])).to(device)
    weights = captions.sampling_weights(kept)
    concept_ids = {concept: i for i, concept in enumerate(sorted({r["label"] for r in kept}))}
    noun_ids = {noun: i for i, noun in enumerate(sorted({noun for r in kept for noun in r["nouns"]}))}
    concepts = torch.tensor([concept_ids[r["label"]] for r in kept])
    nouns = torch.zeros(len(kept), len(noun_ids))
    for row, record in enumerate(kept):
        nouns[row, [noun_ids[noun] for noun in record["nouns"]]] = 1

    def loss_of(model: Joint, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        view = torch.randint(len(shots), (batch,), generator=generator)
        where = training_index[rows]
        seen, small = features[view, where].to(device), thumbs[view, where].to(device)
        jitter = 0.1 * torch.randn(seen.shape, generator=generator).to(device)
        embedding = model.space(seen + jitter, small)
        noisy = embedding + 0.15 * torch.randn(embedding.shape, generator=generator).to(device)
        feature_loss = functional.mse_loss(model.space.read_features(noisy), seen)
        thumbnail_loss = functional.mse_loss(model.space.read_thumbnail(noisy), small)

        words = [captions.caption(kept[row], generator) for row in rows.tolist()]
        tokens = tokenizer(words, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").to(device)
        text = model.text_encoder(tokens.input_ids).text_embeds
        same = (concepts[rows][:, None] == concepts[rows][None]).float()
        related = (nouns[rows] @ nouns[rows].T > 0).float()
        target = same + 0.15 * related
        target = (target / target.sum(1, keepdim=True)).to(device)
        scale = model.space.log_temperature.clamp(max=3.4).exp()
        logits = scale * functional.normalize(text, dim=-1) @ functional.normalize(embedding, dim=-1).T
        contrastive = 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))

        some = torch.randint(len(phrases), (64,), generator=generator)
        hidden = model.text_encoder(phrase_ids[some].to(device)).text_embeds
        read = model.space.read_sentence(functional.normalize(hidden, dim=-1) * DIM**0.5)
        sentence_loss = 1 - functional.cosine_similarity(read, sentences[some].to(device)).mean()
        # text and image embeddings of one picture should also agree in length: the prior and the anchor loss use the cosine,
        # the text encoder's scale is free, so it is tied here
        length = (text.norm(dim=-1) / DIM**0.5 - 1).square().mean()
        loss = contrastive + feature_loss + 6 * thumbnail_loss + sentence_loss + 0.1 * length
        hit = float((logits.argmax(1).cpu() == torch.arange(batch)).float().mean())
        figures = {"contrastive": float(contrastive.detach()), "features": float(feature_loss.detach())}
        figures |= {"thumbnail": float(thumbnail_loss.detach()), "sentence": float(sentence_loss.detach()), "hit": hit}
        return loss, figures

    training.train("clip-space", model, loss_of, work=work, steps=steps, peak_lr=1e-3, seed=seed)
    starts = range(0, len(images), 512)
    with torch.no_grad():
        parts = [
            [model.space(features[v, i : i + 512].to(device), thumbs[v, i : i + 512].to(device)).cpu() for i in starts]
            for v in range(len(shots))
        ]
        embeddings = torch.stack([torch.cat(part) for part in parts])
        gray = np.full((1, corpus.SIZE, corpus.SIZE, 3), 127, np.uint8)
        gray_features = (teachers.image_features(gray, 0, corpus.SIZE, device) - mean) / std
        zero = model.space(gray_features.to(device), thumbnails(gray).to(device)).cpu()
    torch.save({"embeddings": embeddings, "zero": zero, "mean": mean, "std": std}, work / "embeddings.pt")
    torch.save({k: v.cpu() for k, v in model.space.state_dict().items()}, work / "space.pt")
    text_encoder.eval().save_pretrained(work / "text_encoder")
    tokenizer.save_pretrained(work / "tokenizer")
    return tokenizer, text_encoder, embeddings


def embed_some_patches(model: CLIPVisionModelWithProjection, pixels: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """Embeddings (N, 320) from the patches ``kept`` (K,) only, or from all: half of the patches cost half of the time and are
    enough to learn from (Liu et al., *PatchDropout*, 2022).
    """
    tower = model.vision_model
    hidden = tower.embeddings(pixels)
    if kept is not None:
        hidden = torch.cat([hidden[:, :1], hidden[:, 1:][:, kept]], 1)
    last = tower.encoder(inputs_embeds=tower.pre_layrnorm(hidden)).last_hidden_state
    return model.visual_projection(tower.post_layernorm(last[:, 0]))


def train_image_encoder(
    images: np.ndarray,
    records: list[dict],
    embeddings: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 64,
    seed: int = 0,
):
    """Step 2: a vision transformer learns the teacher embeddings (views, N, 320) from pixels. Returns it."""
    torch.manual_seed(seed)
    model = build_image_encoder().to(device)
    kept = torch.tensor([i for i, record in enumerate(records) if record["split"] == "train"])
    weights = captions.sampling_weights([records[i] for i in kept.tolist()])

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = kept[torch.multinomial(weights, batch, replacement=True, generator=generator)]
        view = torch.randint(embeddings.shape[0], (batch,), generator=generator)
        pictures = np.empty((batch, *images.shape[1:]), np.uint8)
        for v in range(embeddings.shape[0]):
            mask = (view == v).numpy()
            pictures[mask] = views(images[rows[mask].numpy()])[v]
        pixels = to_tensor(pictures).to(device)
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(device)
        target = embeddings[view, rows].to(device)
        patches = (corpus.SIZE // 16) ** 2
        some = torch.randperm(patches, generator=generator)[: patches // 2] if step < 0.7 * steps else None
        output = embed_some_patches(model, pixels, some)
        cosine = functional.cosine_similarity(output, target).mean()
        logits = 20 * functional.normalize(output, dim=-1) @ functional.normalize(target, dim=-1).T
        agree = functional.cross_entropy(logits, torch.arange(batch, device=logits.device))
        loss = functional.mse_loss(output, target) + 0.2 * agree
        return loss, {
            "cosine": float(cosine.detach()),
            "hit": float((logits.argmax(1).cpu() == torch.arange(batch)).float().mean()),
        }

    training.train("clip-image", model, loss_of, work=work, steps=steps, peak_lr=7e-4, seed=seed, weight_decay=0.05)
    model.save_pretrained(Path(work) / "image_encoder")
    return model


@torch.no_grad()
def embed_images(model: CLIPVisionModelWithProjection, images: np.ndarray, batch: int = 64) -> torch.Tensor:
    """Embeddings (N, 320) of uint8 pictures (N, 128, 128, 3) by the shipped image encoder."""
    device = next(model.parameters()).device
    return torch.cat(
        [
            model(pixel_values=to_tensor(images[i : i + batch]).to(device)).image_embeds.cpu()
            for i in range(0, len(images), batch)
        ]
    )


@torch.no_grad()
def embed_texts(model: CLIPTextModelWithProjection, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Text embeddings (N, 320)."""
    tokens = tokenizer(texts, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return model(tokens.input_ids.to(next(model.parameters()).device)).text_embeds.cpu()


def zero_shot(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Index of the nearest text (cosine) for each image: (N,)."""
    return (functional.normalize(images, dim=-1) @ functional.normalize(texts, dim=-1).T).argmax(1)
