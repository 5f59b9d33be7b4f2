"""The one-step model of Pocket Kandinsky: noise and text to latents in one evaluation of a UNet, taught by pairs of both stages
(``one_step_pairs``). In the form of Stable Diffusion; text encoder and autoencoder are Pocket Kandinsky's own.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel, VQModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from transformers import CLIPTextModelWithProjection

from creativelib.frameworks import eight_bits, pocket
from creativelib.pocket import autoencoder, clip, decoder, taxonomy, training
from creativelib.pocket.autoencoder import LATENT_CHANNELS
from creativelib.pocket.judge import Judge
from creativelib.pocket.one_step_pairs import SHAPE, Pairs, Teacher, make_pairs
from creativelib.text import positive_prompt

BATCH = {"cpu": 32, "cuda": 512}  # a GPU is not filled by 32 latents
CRITIC_WEIGHT = 0.05  # of the critic's word beside the regression
CRITIC_FROM = 0.5  # of the training is done when it is asked
MOST_MIB = 5  # of what is shipped
SETTINGS = {"image_size": 128, "eta": 1.0, "learning_rate": 1e-3, "drawings": True}  # of the search, see ``OneStepSettings``


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


class LatentCritic(nn.Module):
    """Tells the teacher's latents (N, 8, 16, 16) from a student's, patch by patch, beside what the decoder's matrix painted for
    either. Spectral normalisation keeps it from running away from a small student.
    """

    def __init__(self):
        super().__init__()
        widths, layers = (2 * LATENT_CHANNELS, 64, 96, 96, 128), []
        for stride, before, after in zip((1, 2, 1, 2), widths[:-1], widths[1:], strict=True):
            layers += [spectral_norm(nn.Conv2d(before, after, 2 + stride, stride, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1)))

    def forward(self, latents: torch.Tensor, painted: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.cat([latents, painted], 1))


def train(teacher: Teacher, pairs: Pairs, work: Path, steps: int, peak_lr: float = 1e-3, seed: int = 0) -> UNet2DConditionModel:
    """Train a student on the teacher's pairs.

    Latents are compared by a loss that forgives large errors a little (they are where the student cannot know), at their own
    size and averaged, since the eye forgives a wrong stroke sooner than a wrong colour. The mean of all pictures that might be
    is a blur, so in the second half of the training a critic asks for one of them. Of a pair's noise the part that says nothing
    is drawn anew each time.
    """
    torch.manual_seed(seed)
    device = teacher.device
    kind = torch.device(device).type
    batch = BATCH.get(kind, BATCH["cpu"])
    model = build().to(device, memory_format=torch.channels_last)
    if kind == "cpu":
        model.set_attn_processor(AttnProcessor())  # three times as fast there as torch's fused attention in bfloat16
    pair = nn.ModuleDict({"student": model, "critic": LatentCritic().to(device)})
    known = list(teacher.clouds)
    place = torch.tensor([known.index(text) for text in pairs.texts])
    # all data is small, and lies where it is used
    hidden, taught, targets = teacher.hidden_states(known), pairs.noise.to(device), pairs.latents.to(device)
    clouds = [torch.stack([getattr(cloud, part) for cloud in teacher.clouds.values()]).to(device) for part in ("mean", "root")]
    patterns = teacher.patterns.to(device)
    coarse = {name: tensor.to(device) for name, tensor in teacher.coarse.items()}

    def loss_of(pair: nn.ModuleDict, generator: torch.Generator, step: int) -> tuple[torch.Tensor, dict]:
        here = generator if kind == "cpu" else training.step_generator(seed, step, device)  # noise is drawn where it is used
        rows = torch.randint(len(pairs), (batch,), generator=generator)
        texts, rows = place[rows].to(device), rows.to(device)
        target = targets[rows].float()
        silent = torch.randn(batch, patterns.shape[0], generator=here, device=device)
        numbers = taught[rows].float().flatten(1) @ patterns
        noise = silent + (numbers - silent @ patterns) @ patterns.T
        shown = noise.unflatten(1, SHAPE).contiguous(memory_format=torch.channels_last)
        output = predict(pair["student"], shown, hidden[texts]).float()
        loss = sum(
            functional.smooth_l1_loss(functional.avg_pool2d(output, size), functional.avg_pool2d(target, size), beta=0.5)
            for size in (1, 2, 4)
        )
        figures = {"error": functional.mse_loss(output.detach(), target)}
        asked = (step / steps - CRITIC_FROM) / 0.1  # the critic learns first
        if asked < 0:
            return loss, figures
        mean, root = (part[texts] for part in clouds)
        painted = decoder.paint(coarse, mean + (numbers[:, None] @ root)[:, 0])
        critic = pair["critic"]
        frozen = {name: parameter.detach() for name, parameter in critic.named_parameters()}
        fooled = -torch.func.functional_call(critic, frozen, (output, painted)).mean()
        told = (
            functional.relu(1 - critic(target, painted)).mean() + functional.relu(1 + critic(output.detach(), painted)).mean()
        )
        figures |= {"fooled": fooled.detach(), "told": told.detach()}
        return loss + CRITIC_WEIGHT * min(1.0, asked) * fooled + told, figures

    training.train("one-step", pair, loss_of, work=work, steps=steps, peak_lr=peak_lr, seed=seed, ema_decay=0.9995)
    return model


# --- measuring --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(
    model: UNet2DConditionModel, teacher: Teacher, held_out: Pairs, movq: VQModel, judge: Judge
) -> tuple[dict, np.ndarray]:
    """How near the student is to its teacher, on noise and texts that it was not trained on.

    Returns:
        ``unexplained``: squared error of the latents over their variance, and ``unexplained_of_seeds``, over the variance among
        pictures of one text. ``judge``: by subject, the share of plain pictures that the judge calls so, of the student and of
        the teacher; ``judged``: how many pictures of either. Beside it a sheet (H, W, 3) uint8 of the student's pictures: a row
        for each subject, the first eight seeds.
    """
    seeds = min(16, max(1, len(held_out) // held_out.seeds))
    hidden = teacher.hidden_states(held_out.texts)
    noise, target = held_out.noise.float(), held_out.latents.float()
    drawn = torch.cat(
        [predict(model, a.to(teacher.device), b).float().cpu() for a, b in zip(noise.split(32), hidden.split(32), strict=True)]
    )
    within = target.unflatten(0, (-1, held_out.seeds)).var(1, correction=1).mean()
    error = functional.mse_loss(drawn, target)
    shares, rows = {}, []
    for number, subject in enumerate(taxonomy.SUBJECTS):
        prompt = positive_prompt(subject)
        noise = torch.randn(seeds, *SHAPE, generator=training.step_generator(1, number))
        told = teacher.hidden_states([prompt]).expand(seeds, -1, -1)
        both = predict(model, noise.to(teacher.device), told).float().cpu(), teacher.draw([prompt], noise[None])[0]
        images = [autoencoder.decode(movq, latents) for latents in both]
        shares[subject] = [float(judge.is_subject(part, subject).mean()) for part in images]
        rows.append(np.concatenate(images[0][:8], 1))
    figures = {
        "unexplained": float(error / target.var()),
        "unexplained_of_seeds": float(error / within),
        "judged": seeds,
        "judge": {subject: {"student": own, "teacher": other} for subject, (own, other) in shares.items()},
    }
    return figures, np.concatenate(rows)


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
    student = train(teacher, pairs.part(0, -kept), here, steps, seed=seed)
    student.load_state_dict(eight_bits.unpack(eight_bits.pack(student.state_dict())))  # what is shipped is what is measured
    found, sheet = measure(student, teacher, pairs.part(-kept), movq, Judge.load(model / "judge"))
    facts = {"pairs": len(pairs) - kept, "steps": steps, "seed": seed, "teacher": teacher.mark, "measured": found}
    facts["teacher_drew"] = {"steps": teacher.decoder_steps, "guidance": teacher.decoder_guidance}
    text = CLIPTextModelWithProjection.from_pretrained(model / "prior" / "text_encoder", dtype=torch.float32)
    learned_from = pocket.marks(movq, text)
    export(student, out, {**SETTINGS, "learned_from": learned_from, **facts}, sheet, here / "logs")


CARD = """# Pocket Kandinsky in one step

Noise and a text to latents in one evaluation of a small UNet, in the form of Stable Diffusion. Text encoder, autoencoder and
the image encoder that looks at its pictures are those of [Pocket Kandinsky](../pocket/MODEL_CARD.md), which taught it; so are
[sources and licences](../pocket/SOURCES.md). `creativelib.load_one_step("pocket")` puts the parts together; notebook
[09](../../notebooks/09_other_frameworks.ipynb) works with it. Weights are kept in eight bits, see
`creativelib.frameworks.eight_bits`.

Trained by `python -m creativelib.pocket.train --stages one-step`: {pairs:,} pairs of noise and picture, {steps:,} steps.

| subject | the judge calls it so | its teacher's pictures |
|---|---|---|
{rows}
| **mean** | {student:.0%} | {teacher:.0%} |

{judged} plain pictures of each; the teacher drew in {drew[steps]} steps at guidance {drew[guidance]:g}. On noise that it was
not trained on, it leaves {unexplained:.0%} of the variance of its teacher's latents unexplained, {within:.0%} of that
among pictures of one text: where it cannot know, it draws soft shapes. It knows the prompts of the eight
subjects; of other words it was shown nothing.

![plain pictures of the eight subjects, a row each, first seeds](sheet.jpg)
"""


def card(facts: dict) -> str:
    """``MODEL_CARD.md`` of what was measured."""
    measured, shares = facts["measured"], facts["measured"]["judge"]
    rows = "\n".join(f"| {subject} | {one['student']:.0%} | {one['teacher']:.0%} |" for subject, one in shares.items())
    means = {who: sum(one[who] for one in shares.values()) / len(shares) for who in ("student", "teacher")}
    return CARD.format(
        pairs=facts["pairs"],
        steps=facts["steps"],
        drew=facts["teacher_drew"],
        rows=rows,
        judged=measured["judged"],
        unexplained=measured["unexplained"],
        within=measured["unexplained_of_seeds"],
        **means,
    )


def export(model: UNet2DConditionModel, out: Path, facts: dict, sheet: np.ndarray, logs: Path) -> None:
    """Write ``out``: the student in eight bits, its scheduler, ``facts`` as ``one_step.json`` and as a card with a ``sheet`` of
    its pictures, the curve of its training.

    Raises:
        SystemExit: it is too large to ship.
    """
    shutil.rmtree(out, ignore_errors=True)
    eight_bits.save_unet(model, out / "unet")
    pocket.scheduler().save_pretrained(out / "scheduler")
    shutil.copytree(logs, out / "logs")
    (out / "one_step.json").write_text(json.dumps(facts, indent=2) + "\n")
    (out / "MODEL_CARD.md").write_text(card(facts), encoding="utf-8")
    Image.fromarray(sheet).save(out / "sheet.jpg", quality=75)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    print(f"{out}: {size:.1f} MiB")
    if size > MOST_MIB:
        raise SystemExit(f"Too large to ship: {size:.1f} MiB, {MOST_MIB} allowed")
