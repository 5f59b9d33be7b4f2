"""The decoder of Pocket Kandinsky: from the image embedding to latents, coarse first, then by diffusion.

1. *Coarse.* The space is trained so that the latents can be read from an embedding by a linear map. That map, one matrix
   fitted by least squares, paints a blurred picture.
2. *Diffusion*, diffusers' ``UNet2DConditionModel`` in the form of Kandinsky 2.2's decoder: the embedding enters through the
   time embedding (everywhere) and as tokens of the attention. It starts at timestep 599 of 1000 from the painted latents
   plus noise, and so has to add what the matrix cannot know, not to find the layout in pure noise: that took a network of
   this size 147,000 samples to learn badly, and the matrix knows it at once.

v-prediction. In training a quarter of every batch is like what sampling starts from, painted latents plus noise, with the true
latents as the target, so that the first steps learn to mend the painting.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, KandinskyV22Pipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnAddedKVProcessor
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from tqdm.auto import tqdm

from creativelib.pocket import autoencoder, space, taxonomy, training
from creativelib.pocket.autoencoder import LATENT_CHANNELS
from creativelib.pocket.worlds import Worlds

AXES = 60  # of each group of directions that embeddings stray in
BATCH, PEAK_LR = {"cpu": 32, "cuda": 1024}, {"cpu": 6e-4, "cuda": 1e-3}  # a GPU is not filled by 32 latents
START = 600  # timesteps of the diffusion, of the 1000 of the whole schedule


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
        encoder_hid_dim=space.DIM,
        addition_embed_type="image",
        time_embedding_dim=384,
    )


def scheduler() -> DDIMScheduler:
    """The first ``START`` steps of the squared-cosine schedule; v-prediction."""
    whole = DDIMScheduler(beta_schedule="squaredcos_cap_v2").betas
    return DDIMScheduler(
        num_train_timesteps=START, trained_betas=whole[:START].tolist(), prediction_type="v_prediction", clip_sample=False,
        timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip


def draw_timesteps(count: int, generator: torch.Generator) -> torch.Tensor:
    """Timesteps (count,) in 0..START - 1, with density rising linearly with the noise."""
    return (torch.rand(count, generator=generator).sqrt() * START).long().clamp(max=START - 1)


def fit_coarse(embeddings: torch.Tensor, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Ridge regression of latents (n, 8, 16, 16) on embeddings (n, d): weight (2048, d) and bias (2048,), and the range low and
    high (2048,) that all but 4 in 1,000 of the latents keep.
    """
    x, y = embeddings.double(), latents.flatten(1).double()
    centre, mean = x.mean(0), y.mean(0)
    x = x - centre
    weight = torch.linalg.solve(x.T @ x + 0.02 * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ (y - mean)).T
    some = y[:: max(1, len(y) // 5000)].float()
    low, high = torch.quantile(some, torch.tensor([0.002, 0.998]), dim=0)
    return {
        "weight": weight.float().contiguous(),
        "bias": (mean - weight @ centre).float(),
        "low": low.clone(),
        "high": high.clone(),
    }


def paint(coarse: dict[str, torch.Tensor], embeddings: torch.Tensor) -> torch.Tensor:
    """Coarse latents (N, 8, 16, 16) of embeddings (N, d), kept within the range of real ones: a matrix extrapolates without
    bound, and a search goes far.
    """
    painted = functional.linear(embeddings, coarse["weight"], coarse["bias"])
    return painted.clamp(coarse["low"], coarse["high"]).unflatten(1, (LATENT_CHANNELS, 16, 16))


def train(
    worlds: Worlds,
    latents: torch.Tensor,
    embeddings: torch.Tensor,
    zero: torch.Tensor,
    work: Path,
    device: str,
    steps: int,
    seed: int = 0,
    warm: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train on latents (rows, 8, 16, 16) and embeddings (rows, d) of both worlds; ``zero`` (1, d) is the embedding of the zero
    image, diffusers' *unconditional*, which replaces a tenth of them. Starts from ``warm``, or anew. Writes
    ``work/coarse.safetensors``.
    """
    axes = search_axes(worlds, embeddings)
    rows = worlds.draw(min(40_000, 4 * len(worlds)), training.step_generator(seed, 0))
    coarse = fit_coarse(stray(embeddings[rows], axes, training.step_generator(seed, 1)), latents[rows])
    save_file(coarse, Path(work) / "coarse.safetensors")
    # all data is small, and lies where it is used
    coarse = {name: tensor.to(device) for name, tensor in coarse.items()}
    latents, embeddings, axes, zero = (tensor.to(device) for tensor in (latents, embeddings, axes, zero))
    kind = torch.device(device).type
    batch, signal = BATCH.get(kind, BATCH["cpu"]), scheduler().alphas_cumprod.to(device)
    torch.manual_seed(seed)
    model = (warm or build()).to(device, memory_format=torch.channels_last)
    if kind == "cpu":
        model.set_attn_processor(AttnAddedKVProcessor())  # three times as fast there as torch's fused attention in bfloat16

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        here = generator if kind == "cpu" else training.step_generator(seed, step, device)  # noise is drawn where it is used
        rows = worlds.draw(batch, generator).to(device)
        target = latents[rows].float()
        condition = stray(embeddings[rows], axes, here)
        painted = paint(coarse, condition)
        drop = (torch.rand(batch, 1, generator=generator) < 0.1).to(device)
        condition = torch.where(drop, zero, condition)
        t = draw_timesteps(batch, generator)
        first = torch.rand(batch, generator=generator) < 0.25  # from the painting, as sampling starts
        later = torch.randint(START // 2, START, (batch,), generator=generator)
        t[first] = torch.where(torch.rand(batch, generator=generator) < 0.5, START - 1, later)[first]
        some, first, t = bool(first.any()), first.to(device), t.to(device)
        alpha = signal[t].view(-1, 1, 1, 1)
        noise = torch.randn(target.shape, generator=here, device=device)
        shown = torch.where(first.view(-1, 1, 1, 1), painted, target)
        noisy = (alpha.sqrt() * shown + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        velocity = (alpha.sqrt() * noisy - target) / (1 - alpha).sqrt()  # whatever was shown, the answer is the target
        output = model(noisy, t, None, added_cond_kwargs={"image_embeds": condition}).sample
        error = (output[:, :LATENT_CHANNELS].float() - velocity).square().mean((1, 2, 3))
        return error.mean(), {"start": (error.detach() * first).sum() / first.sum()} if some else {}

    peak_lr = PEAK_LR.get(kind, PEAK_LR["cpu"])
    training.train("decoder", model, loss_of, work=work, steps=steps, peak_lr=peak_lr, seed=seed, ema_decay=0.9995)
    return model


@torch.no_grad()
def sample(
    model: UNet2DConditionModel, coarse: dict[str, torch.Tensor], embeddings: torch.Tensor, zero: torch.Tensor, device: str,
    *, steps: int, guidance: float, seed: int = 0, batch: int = 32,
) -> torch.Tensor:  # fmt: skip
    """Latents (N, 8, 16, 16) that the diffusion draws for embeddings (N, d), as a loaded generator does, not yet decoded."""
    pipeline = KandinskyV22Pipeline(unet=model.eval(), scheduler=scheduler(), movq=autoencoder.build()).to(device)
    pipeline.set_progress_bar_config(disable=True)
    signal, drawn = float(scheduler().alphas_cumprod[-1]), []
    for number, part in enumerate(tqdm(embeddings.split(batch), desc="drawing", leave=False, mininterval=5)):
        generator = training.step_generator(seed, number)
        painted = paint(coarse, part)
        start = signal**0.5 * painted + (1 - signal) ** 0.5 * torch.randn(painted.shape, generator=generator)
        with training.autocast(torch.device(device)), training.float32_norms(model):
            drawn.append(
                pipeline(
                    part.to(device), zero.expand_as(part).to(device), height=128, width=128, num_inference_steps=steps,
                    guidance_scale=guidance, latents=start.to(device), output_type="latent",
                ).images.float().cpu()
            )  # fmt: skip
    return torch.cat(drawn)


def search_axes(worlds: Worlds, embeddings: torch.Tensor) -> torch.Tensor:
    """Directions in which a search moves embeddings (rows, d): (groups, AXES, d), orthonormal rows in each group.

    The principal axes of each of the eight subjects, since that is where surprise is measured, and those of everything.
    """
    nouns = [record["nouns"][0] if typical else None for record, typical in zip(worlds.records, worlds.typical, strict=True)]
    kinds = [torch.tensor([noun == subject for noun in nouns]) for subject in taxonomy.SUBJECTS]
    groups = [embeddings[kind] for kind in kinds if int(kind.sum()) > AXES] + [embeddings[:: max(1, len(embeddings) // 20_000)]]
    return torch.stack(
        [torch.linalg.eigh(torch.cov(group.double().T)).eigenvectors.T.flip(0)[:AXES].float() for group in groups]
    )


def stray(embeddings: torch.Tensor, axes: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Embeddings (N, d) as a search leaves them: what lies off the data must decode to something whole.

    With noise of up to half their size, every third mixed with another one, and half of them moved far in one direction, as the
    search moves all samples (by 13 to 16 of a length of 17 for 100 nats): one within ten neighbouring ones of a group of
    ``axes`` (groups, AXES, d), by up to 16.
    """
    count, (groups, number, _), device = len(embeddings), axes.shape, embeddings.device

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, device=device)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def whole(below: int, *shape: int) -> torch.Tensor:
        return torch.randint(below, shape, generator=generator, device=device)

    spread = 0.25 * normal(count, 1).abs().clamp(max=2)
    mixed = (uniform(count, 1) < 0.3) * 0.35 * uniform(count, 1)
    mixture = torch.lerp(embeddings, embeddings.roll(1, 0), mixed)
    begin, places = whole(max(1, number - 9), count, 1), torch.arange(number, device=device)
    window = (places >= begin) & (places < begin + 10)
    parts = functional.normalize(window * normal(count, number), dim=-1)
    direction = (parts[:, None] @ axes[whole(groups, count)])[:, 0]
    far = (uniform(count, 1) < 0.5) * 16 * uniform(count, 1)
    return mixture + spread * normal(*embeddings.shape) + far * direction
