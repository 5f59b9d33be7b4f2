"""The CLIP pair of Pocket Kandinsky: a tokenizer, a text and an image encoder into the space of ``pocket.space``.

Both encoders learn to land near embeddings that are given: the text encoder near the pictures that a caption fits, the image
encoder, a vision transformer that sees pixels alone, at the embedding of its picture.
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

from creativelib.pocket import captions, corpus, space, teachers, training
from creativelib.pocket.autoencoder import to_tensor
from creativelib.pocket.worlds import Worlds

DIM = space.DIM
MAX_TOKENS = 32
VOCABULARY = 6144
IMAGE_MEAN = IMAGE_STD = [0.5, 0.5, 0.5]
CLIP_PATTERN = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def depictable_words(phrases: list[str], count: int = 1200) -> list[str]:
    """English words that no phrase holds and that mean something near to one: "lantern", "canoe". Made from the vocabulary
    of the sentence teacher, so that a user's own word is one token which starts in a sensible place.
    """
    known = {word for phrase in phrases for word in re.findall(r"[a-z]+", phrase.lower())}
    words = sorted(word for word in teachers.vocabulary() if re.fullmatch(r"[a-z]{3,}", word) and word not in known)
    near = (teachers.sentence_features(words) @ teachers.sentence_features(phrases).T).max(1).values
    return sorted(words[i] for i in near.topk(min(count, len(words))).indices.tolist())


def train_tokenizer(phrases: list[str], words: list[str] = ()) -> CLIPTokenizer:
    """A CLIP tokenizer (byte-level BPE) whose vocabulary is made from ``phrases`` and holds each of ``words`` whole, as far as
    there is room; any text tokenises, rare words in pieces.
    """
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
    trainer_model.train_from_iterator([*phrases, *(50 * templates), *(50 * ["a an the of"]), *(4 * list(words))], trainer)
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
            num_hidden_layers=2,
            num_attention_heads=5,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=DIM,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_image_encoder() -> CLIPVisionModelWithProjection:
    """A new image encoder: 128 px in patches of 16, 4 layers of width 256."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=256,
            intermediate_size=1024,
            num_hidden_layers=4,
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


def train_text_encoder(
    records: list[dict],
    embeddings: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 96,
    seed: int = 0,
    warm: tuple[CLIPTokenizer, CLIPTextModelWithProjection] | None = None,
) -> tuple[CLIPTokenizer, CLIPTextModelWithProjection]:
    """Train tokenizer and text encoder on the typical world: to land near the embeddings (views, n, 320) of the n training
    pictures ``records``, which stay as they are. Starts from ``warm``, or anew.

    Contrastive, plus a linear read-out of sentence embeddings for every phrase and every word of ``depictable_words``, so
    that words which no caption holds land near those that mean something alike.
    """
    work = Path(work)
    weights = captions.sampling_weights(records)
    phrases = captions.all_phrases(records)
    words = depictable_words(phrases)
    torch.manual_seed(seed)
    tokenizer, text_encoder = warm or (train_tokenizer(phrases, words), None)
    if text_encoder is None:
        text_encoder = build_text_encoder(tokenizer)
        initialise_tokens(text_encoder, tokenizer)
    phrases = phrases + words
    sentences = teachers.sentence_features(phrases)
    phrase_ids = tokenizer(phrases, padding="max_length", max_length=12, truncation=True, return_tensors="pt").input_ids
    concepts, nouns = space.meanings(records)
    temperature = nn.Parameter(torch.tensor(2.3))
    model = nn.ModuleDict({"text": text_encoder, "read": nn.Linear(DIM, sentences.shape[1])}).to(device)
    model.register_parameter("log_temperature", temperature)

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        view = torch.randint(len(embeddings), (batch,), generator=generator)
        picture = functional.normalize(embeddings[view, rows].to(device), dim=-1)
        said = [captions.caption(records[row], generator) for row in rows.tolist()]
        tokens = tokenizer(said, padding="longest", max_length=MAX_TOKENS, truncation=True, return_tensors="pt").to(device)
        text = model["text"](tokens.input_ids).text_embeds
        scale = model.log_temperature.clamp(max=3.4).exp()
        logits = scale * functional.normalize(text, dim=-1) @ picture.T
        contrastive = space.contrastive_loss(logits, concepts[rows], nouns[rows])
        some = torch.randint(len(phrases), (64,), generator=generator)
        hidden = model["text"](phrase_ids[some].to(device)).text_embeds
        read = model["read"](functional.normalize(hidden, dim=-1) * DIM**0.5)
        sentence = 1 - functional.cosine_similarity(read, sentences[some].to(device)).mean()
        # the cosine leaves the length free; the prior reads it, so it is tied to the pictures'
        length = (text.norm(dim=-1) / DIM**0.5 - 1).square().mean()
        hit = float((logits.argmax(1).cpu() == torch.arange(batch)).float().mean())
        figures = {"contrastive": float(contrastive.detach()), "sentence": float(sentence.detach()), "hit": hit}
        return contrastive + sentence + 0.1 * length, figures

    training.train("clip-text", model, loss_of, work=work, steps=steps, peak_lr=1e-3, seed=seed)
    text_encoder.eval().save_pretrained(work / "text_encoder")
    tokenizer.save_pretrained(work / "tokenizer")
    return tokenizer, text_encoder


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
    worlds: Worlds,
    embeddings: torch.Tensor,
    zero: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 64,
    seed: int = 0,
    warm: CLIPVisionModelWithProjection | None = None,
) -> CLIPVisionModelWithProjection:
    """A vision transformer learns the space's embeddings (rows, 320) of both worlds from pixels, and that of the zero image,
    mid grey, to be ``zero`` (1, 320), as the decoder was told. Starts from ``warm``, or anew. Writes ``work/image_encoder``.
    """
    torch.manual_seed(seed)
    model = (warm or build_image_encoder()).to(device)

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = worlds.draw(batch, generator)
        pixels = to_tensor(worlds.pictures(rows)).to(device)
        pixels = pixels + 0.05 * torch.randn(pixels.shape, generator=generator).to(device)
        target = embeddings[rows].to(device)
        if step % 8 == 0:  # one known picture is soon learned
            pixels[0], target[0] = 0.0, zero[0].to(device)
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
