"""The diffusion prior of Pocket Kandinsky: diffusers' ``PriorTransformer`` from text to image embedding (paper's Eq. 2)."""

from pathlib import Path

import torch
from diffusers import PriorTransformer, UnCLIPScheduler
from torch import nn
from torch.nn import functional

from creativelib.generator import TextCondition
from creativelib.pocket import captions, clip, training
from creativelib.prior_sampling import CachedPrior


def build() -> PriorTransformer:
    """A new prior, 4 layers of width 256. diffusers leaves three parameters at zero; they are initialised here."""
    model = PriorTransformer(
        num_attention_heads=4,
        attention_head_dim=64,
        num_layers=4,
        embedding_dim=clip.DIM,
        num_embeddings=clip.MAX_TOKENS,
        additional_embeddings=4,
    )
    with torch.no_grad():
        model.prd_embedding.normal_(0, 0.02)
        model.positional_embedding.normal_(0, 0.02)
        model.clip_mean.zero_()
        model.clip_std.fill_(1.0)
    return model


def scheduler() -> UnCLIPScheduler:
    """The schedule of the Kandinsky priors: squared cosine, x0-prediction."""
    return UnCLIPScheduler(
        variance_type="fixed_small_log",
        num_train_timesteps=1000,
        clip_sample=True,
        clip_sample_range=5.0,
        prediction_type="sample",
    )


def draw_timesteps(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Timesteps in 0..999: half of them anywhere, half where sampling in five steps asks."""
    anywhere = torch.randint(1000, shape, generator=generator)
    asked = torch.tensor([250, 500, 749, 999])[torch.randint(4, shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.5, anywhere, asked)


def train(
    records: list[dict],
    embeddings: torch.Tensor,
    tokenizer,
    text_encoder: nn.Module,
    work: Path,
    device: str,
    steps: int,
    batch: int = 40,
    pictures: int = 4,
    seed: int = 0,
    warm: PriorTransformer | None = None,
) -> PriorTransformer:
    """Train on the typical world: captions of the n training pictures ``records`` and their image embeddings (views, n, d); a
    tenth of the captions is empty. Starts from ``warm``, or anew.

    Each caption of a batch is read once (``CachedPrior``) and learned from with several pictures that it fits.
    """
    weights, fitting = captions.sampling_weights(records), captions.pictures_of(records)
    torch.manual_seed(seed)
    model = (warm or build()).to(device)
    with torch.no_grad():
        pool = embeddings.flatten(0, 1)
        model.clip_mean.copy_(pool.mean(0, keepdim=True))
        model.clip_std.copy_(pool.std(0, keepdim=True))
    for frozen in (model.clip_mean, model.clip_std):
        frozen.requires_grad_(False)
    text_encoder = text_encoder.to(device).eval().requires_grad_(False)
    signal = scheduler().alphas_cumprod

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        drawn = torch.multinomial(weights, batch, replacement=True, generator=generator).tolist()
        said = [captions.draw(records[row], generator) for row in drawn]
        fits = [fitting[caption.phrase, caption.look] for caption in said]
        rows = torch.stack([rows[torch.randint(len(rows), (pictures,), generator=generator)] for rows in fits])
        empty = (torch.rand(batch, generator=generator) < 0.1).tolist()
        words = ["" if nothing else caption.text for nothing, caption in zip(empty, said, strict=True)]
        tokens = tokenizer(words, padding="max_length", max_length=clip.MAX_TOKENS, truncation=True, return_tensors="pt")
        with torch.no_grad():
            text = text_encoder(tokens.input_ids.to(device))
        condition = TextCondition(text.text_embeds, text.last_hidden_state, tokens.attention_mask.bool().to(device))
        view = torch.randint(len(embeddings), rows.shape, generator=generator)
        target = (embeddings[view, rows].to(device) - model.clip_mean) / model.clip_std  # (batch, pictures, d)
        target = target + 0.05 * torch.randn(target.shape, generator=generator).to(device)
        t = draw_timesteps(rows.shape, generator)
        alpha = signal[t][..., None].to(device)
        noisy = alpha.sqrt() * target + (1 - alpha).sqrt() * torch.randn(target.shape, generator=generator).to(device)
        return functional.mse_loss(CachedPrior(model, [condition]).each(noisy, t.to(device)), target), {}

    training.train("prior", model, loss_of, work=work, steps=steps, peak_lr=1e-3, seed=seed, ema_decay=0.9985)
    return model.requires_grad_(True)
