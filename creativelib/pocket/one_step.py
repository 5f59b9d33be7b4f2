"""The one-step model of Pocket Kandinsky: noise and text to latents in one evaluation of a UNet, taught by pairs of both stages
(``one_step_pairs``). In the form of Stable Diffusion; text encoder and autoencoder are Pocket Kandinsky's own.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, VQModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection

from creativelib.frameworks import pocket
from creativelib.pocket import autoencoder, clip, taxonomy, teachers, training
from creativelib.pocket.autoencoder import CROP, LATENT_CHANNELS
from creativelib.pocket.judge import Judge
from creativelib.pocket.one_step_pairs import SHAPE, Pairs, Teacher, make_pairs
from creativelib.text import positive_prompt

CROPS = 8  # pictures of a batch that are compared as pixels too
PIXELS_WEIGHT = 0.3
MOST_MIB = 8  # of what is shipped
SETTINGS = {"image_size": 128, "eta": 1.0, "learning_rate": 2e-4, "drawings": True}  # of the search, see ``OneStepSettings``


def build() -> UNet2DConditionModel:
    """A new student: Stable Diffusion's UNet in small. It goes down to 2 x 2, where a picture's layout is a few numbers."""
    return UNet2DConditionModel(
        sample_size=SHAPE[1],
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        mid_block_type="UNetMidBlock2D",
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 80, 96, 96),
        layers_per_block=1,
        attention_head_dim=4,  # heads, in spite of its name
        norm_num_groups=16,
        cross_attention_dim=clip.DIM,
        use_linear_projection=True,
        time_embedding_dim=64,  # there is but one time
    )


def predict(model: nn.Module, noise: torch.Tensor, hidden: torch.Tensor, start: int = 999) -> torch.Tensor:
    """Clean latents (N, 8, 16, 16) of noise of that shape and hidden states (N, T, w) of the texts."""
    return model(noise, start, encoder_hidden_states=hidden).sample


def train(
    teacher: Teacher,
    pairs: Pairs,
    movq: VQModel,
    work: Path,
    steps: int,
    batch: int = 32,
    peak_lr: float = 1e-3,
    seed: int = 0,
) -> UNet2DConditionModel:
    """Train a student on the teacher's pairs; ``movq`` decodes.

    Latents are compared by a loss that forgives large errors a little (they are where the student cannot know), at their own
    size and averaged, since the eye forgives a wrong stroke sooner than a wrong colour; and crops of ``CROPS`` pictures as
    pixels, as the autoencoder was taught: the mean of all pictures that might be is a blur, which costs little in latents.
    """
    torch.manual_seed(seed)
    device = teacher.device
    model = build().to(device, memory_format=torch.channels_last)
    model.set_attn_processor(AttnProcessor())  # a CPU takes three times as long for torch's fused attention in bfloat16
    movq = movq.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    perceptual = teachers.PerceptualDistance().to(device)
    side = CROP // 8

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return movq.decode(latents.contiguous(memory_format=torch.channels_last), force_not_quantize=True).sample

    def loss_of(model: nn.Module, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        rows = torch.randint(len(pairs), (batch,), generator=generator)
        noise, target = pairs.noise[rows].to(device).float(), pairs.latents[rows].to(device).float()
        hidden = teacher.hidden_states([pairs.texts[row] for row in rows.tolist()])
        output = predict(model, noise.contiguous(memory_format=torch.channels_last), hidden).float()
        loss = sum(
            functional.smooth_l1_loss(functional.avg_pool2d(output, size), functional.avg_pool2d(target, size), beta=0.5)
            for size in (1, 2, 4)
        )
        top, left = torch.randint(SHAPE[1] - side + 1, (2,), generator=generator).tolist()
        crops = [latents[:CROPS, :, top : top + side, left : left + side] for latents in (output, target)]
        with torch.no_grad():
            wanted = decode(crops[1]).float()
        seen, figures = autoencoder.reconstruction_loss(decode(crops[0]).float(), wanted, perceptual)
        error = functional.mse_loss(output.detach(), target)
        return loss + PIXELS_WEIGHT * seen, {"error": float(error), **figures}

    training.train("one-step", model, loss_of, work=work, steps=steps, peak_lr=peak_lr, seed=seed, ema_decay=0.9995)
    return model


# --- measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(model: UNet2DConditionModel, teacher: Teacher, held_out: Pairs, movq: VQModel, judge: Judge) -> dict:
    """How near the student is to its teacher, on noise and texts that it was not trained on.

    Returns:
        ``unexplained``: squared error of the latents over their variance, and ``unexplained_of_seeds``, over the variance among
        pictures of one text. ``judge``: by subject, the share of plain pictures that the judge calls so, of the student and of
        the teacher; ``judged``: how many pictures of either.
    """
    seeds = min(16, max(1, len(held_out) // held_out.seeds))
    hidden = teacher.hidden_states(held_out.texts)
    noise, target = held_out.noise.float(), held_out.latents.float()
    drawn = torch.cat(
        [predict(model, a.to(teacher.device), b).float().cpu() for a, b in zip(noise.split(32), hidden.split(32), strict=True)]
    )
    within = target.unflatten(0, (-1, held_out.seeds)).var(1, correction=1).mean()
    error = functional.mse_loss(drawn, target)
    shares = {}
    for number, subject in enumerate(taxonomy.SUBJECTS):
        prompt = positive_prompt(subject)
        noise = torch.randn(seeds, *SHAPE, generator=training.step_generator(1, number))
        told = teacher.hidden_states([prompt]).expand(seeds, -1, -1)
        both = predict(model, noise.to(teacher.device), told).float().cpu(), teacher.draw([prompt], noise[None])[0]
        shares[subject] = [float(judge.is_subject(autoencoder.decode(movq, latents), subject).mean()) for latents in both]
    return {
        "unexplained": float(error / target.var()),
        "unexplained_of_seeds": float(error / within),
        "judged": seeds,
        "judge": {subject: {"student": own, "teacher": other} for subject, (own, other) in shares.items()},
    }


# --- all of it --------------------------------------------------------------------------------------------------------


def distil(model: Path, work: Path, out: Path, count: int, steps: int, device: str = "cpu", seed: int = 0) -> None:
    """Teach a student by a shipped ``model``, measure it by that model's judge, and write it to ``out``.

    Pairs and checkpoint lie in ``work`` and belong to this teacher: of another one they are made anew.

    Args:
        count: pairs. steps: of the training.
    """
    teacher, movq = Teacher.load(model, device), VQModel.from_pretrained(model / "decoder" / "movq", dtype=torch.float32)
    here = work / "one-step" / teacher.mark
    pairs = make_pairs(teacher, count, here / "pairs", seed)
    kept = max(1, len(pairs) // 50 // pairs.seeds) * pairs.seeds  # whole texts
    student = train(teacher, pairs.part(0, -kept), movq, here, steps, seed=seed)
    found = measure(student, teacher, pairs.part(-kept), movq, Judge.load(model / "judge"))
    facts = {"pairs": len(pairs) - kept, "steps": steps, "seed": seed, "teacher": teacher.mark, "measured": found}
    text = CLIPTextModelWithProjection.from_pretrained(model / "prior" / "text_encoder", dtype=torch.float32)
    learned_from = pocket.marks(movq, text)
    export(student, out, {**SETTINGS, "learned_from": learned_from, **facts}, here / "logs")


def export(model: UNet2DConditionModel, out: Path, facts: dict, logs: Path) -> None:
    """Write ``out``: the student in half precision, its scheduler, ``facts`` as ``one_step.json``, the curve of its training.

    Raises:
        SystemExit: it is too large to ship.
    """
    shutil.rmtree(out, ignore_errors=True)
    copy.deepcopy(model).half().save_pretrained(out / "unet")
    pocket.scheduler().save_pretrained(out / "scheduler")
    shutil.copytree(logs, out / "logs")
    (out / "one_step.json").write_text(json.dumps(facts, indent=2) + "\n")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    print(f"{out}: {size:.1f} MiB")
    if size > MOST_MIB:
        raise SystemExit(f"Too large to ship: {size:.1f} MiB, {MOST_MIB} allowed")
