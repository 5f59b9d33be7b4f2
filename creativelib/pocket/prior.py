"""The diffusion prior of Pocket Kandinsky: diffusers' ``PriorTransformer`` from text to image embedding (paper's Eq. 2)."""

from pathlib import Path

import torch
from diffusers import PriorTransformer, UnCLIPScheduler
from torch import nn
from torch.nn import functional

from creativelib.pocket import captions, clip, training


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


def train(
    records: list[dict],
    embeddings: torch.Tensor,
    tokenizer,
    text_encoder: nn.Module,
    work: Path,
    device: str,
    steps: int,
    batch: int = 64,
    seed: int = 0,
) -> PriorTransformer:
    """Train on captions and image embeddings (views, N, d) of the training split; a tenth of the captions is empty."""
    kept = torch.tensor([i for i, record in enumerate(records) if record["split"] == "train"])
    chosen = [records[i] for i in kept.tolist()]
    weights = captions.sampling_weights(chosen)
    torch.manual_seed(seed)
    model = build().to(device)
    with torch.no_grad():
        pool = embeddings[:, kept].flatten(0, 1)
        model.clip_mean.copy_(pool.mean(0, keepdim=True))
        model.clip_std.copy_(pool.std(0, keepdim=True))
    for frozen in (model.clip_mean, model.clip_std):
        frozen.requires_grad_(False)
    text_encoder = text_encoder.to(device).eval().requires_grad_(False)
    signal = scheduler().alphas_cumprod

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.multinomial(weights, batch, replacement=True, generator=generator)
        view = torch.randint(embeddings.shape[0], (batch,), generator=generator)
        drop = (torch.rand(batch, generator=generator) < 0.1).tolist()
        words = ["" if d else captions.caption(chosen[row], generator) for row, d in zip(rows.tolist(), drop, strict=True)]
        tokens = tokenizer(words, padding="max_length", max_length=clip.MAX_TOKENS, truncation=True, return_tensors="pt").to(
            device
        )
        with torch.no_grad():
            text = text_encoder(tokens.input_ids)
        target = (embeddings[view, kept[rows]].to(device) - model.clip_mean) / model.clip_std
        target = target + 0.05 * torch.randn(target.shape, generator=generator).to(device)
        t = torch.randint(1000, (batch,), generator=generator)
        alpha = signal[t].view(-1, 1).to(device)
        noisy = alpha.sqrt() * target + (1 - alpha).sqrt() * torch.randn(target.shape, generator=generator).to(device)
        predicted = model(
            noisy,
            timestep=t.to(device),
            proj_embedding=text.text_embeds,
            encoder_hidden_states=text.last_hidden_state,
            attention_mask=tokens.attention_mask.bool(),
        ).predicted_image_embedding
        return functional.mse_loss(predicted, target), {}

    training.train("prior", model, loss_of, work=work, steps=steps, peak_lr=1e-3, seed=seed, ema_decay=0.9985)
    return model.requires_grad_(True)
