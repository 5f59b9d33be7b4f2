"""The diffusion decoder of Pocket Kandinsky: diffusers' ``UNet2DConditionModel`` from image embedding to latents.

The form of Kandinsky 2.2's decoder: the embedding enters through the time embedding (everywhere) and as tokens of the
attention. v-prediction; timesteps are drawn more often where there is more noise, for there the network must listen to the
embedding (drawn uniformly, it learns to sharpen what is nearly clean and ignores the embedding).
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from creativelib.pocket import captions, clip, training
from creativelib.pocket.autoencoder import LATENT_CHANNELS


def build() -> UNet2DConditionModel:
    """A new decoder UNet."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=2 * LATENT_CHANNELS,  # diffusers' Kandinsky pipelines throw the second half away
        down_block_types=("DownBlock2D", "DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 112, 160),
        layers_per_block=1,
        attention_head_dim=16,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=64,
        encoder_hid_dim_type="image_proj",
        encoder_hid_dim=clip.DIM,
        addition_embed_type="image",
        time_embedding_dim=384,
    )


def scheduler() -> DDIMScheduler:
    """Squared-cosine schedule, v-prediction, first step at pure noise."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, timestep_spacing="trailing",
        set_alpha_to_one=True,
    )  # fmt: skip


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Timesteps (count,) in 0..999: one in sixteen at 999, the others with density rising linearly with the noise."""
    t = (torch.rand(count, generator=generator).sqrt() * 1000).long().clamp(max=999)
    return torch.where(torch.rand(count, generator=generator) < 1 / 16, 999, t)


def train(
    records: list[dict],
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    zero: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    batch: int = 32,
    peak_lr: float = 8e-4,
    seed: int = 0,
    start: dict | None = None,
) -> UNet2DConditionModel:
    """Train on latents (views, N, 8, 16, 16) and embeddings (views, N, d) of the training split; ``zero`` (1, d) is the
    embedding of the zero image, diffusers' *unconditional*, which replaces a tenth of them.
    """
    kept = torch.tensor([i for i, record in enumerate(records) if record["split"] == "train"])
    weights = captions.sampling_weights([records[i] for i in kept.tolist()])
    torch.manual_seed(seed)
    model = build().to(device, memory_format=torch.channels_last)
    if start:
        model.load_state_dict(start)
    signal = scheduler().alphas_cumprod

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = kept[torch.multinomial(weights, batch, replacement=True, generator=generator)]
        view = torch.randint(latents.shape[0], (batch,), generator=generator)
        target = latents[view, rows].to(device).float()
        condition = embeddings[view, rows].to(device)
        # noise on the condition, up to half its size: embeddings off the data must decode to something whole
        spread = 0.25 * torch.randn(batch, 1, generator=generator).abs().clamp(max=2).to(device)
        condition = condition + spread * torch.randn(condition.shape, generator=generator).to(device)
        drop = (torch.rand(batch, 1, generator=generator) < 0.1).to(device)
        condition = torch.where(drop, zero.to(device), condition)
        t = draw_timesteps(batch, generator)
        alpha = signal[t].view(-1, 1, 1, 1).to(device)
        noise = torch.randn(target.shape, generator=generator).to(device)
        noisy = (alpha.sqrt() * target + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * target
        output = model(noisy, t.to(device), None, added_cond_kwargs={"image_embeds": condition}).sample
        error = (output[:, :LATENT_CHANNELS].float() - velocity).square().mean((1, 2, 3))
        blind = error.detach().cpu()[t == 999]
        return error.mean(), {"at_noise": float(blind.mean()) if len(blind) else 1.0}

    training.train("decoder", model, loss_of, work=work, steps=steps, peak_lr=peak_lr, seed=seed, ema_decay=0.9995)
    return model


@torch.no_grad()
def sample(
    model: nn.Module, embeddings: torch.Tensor, zero: torch.Tensor, steps: int, guidance: float, seed: int = 0
) -> torch.Tensor:
    """Latents (N, 8, 16, 16) of embeddings (N, d): the loop of diffusers' decoder pipeline, for looking in while training."""
    schedule = scheduler()
    schedule.set_timesteps(steps)
    x = torch.randn(len(embeddings), LATENT_CHANNELS, 16, 16, generator=torch.Generator().manual_seed(seed)).to(
        embeddings.device
    )
    condition = torch.cat([zero.expand_as(embeddings), embeddings]) if guidance > 1 else embeddings
    for t in schedule.timesteps:
        stacked = torch.cat([x, x]) if guidance > 1 else x
        velocity = model(stacked, t, None, added_cond_kwargs={"image_embeds": condition}).sample[:, :LATENT_CHANNELS]
        if guidance > 1:
            without, given = velocity.chunk(2)
            velocity = without + guidance * (given - without)
        x = schedule.step(velocity, t, x).prev_sample
    return x
