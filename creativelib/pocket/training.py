"""The one training loop of all stages: resumable, seeded, with an exponential moving average and a progress bar."""

import csv
import math
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from creativelib.pocket import captions


def step_generator(seed: int, step: int, device: str = "cpu") -> torch.Generator:
    """Randomness of one step, from its number alone: a resumed run needs no saved state to go on as if never stopped."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % 2**63)


def training_split(records: list[dict]) -> tuple[torch.Tensor, list[dict], torch.Tensor]:
    """Indices (n,) of the records that may be learned from, those records, and how often each is drawn, (n,)."""
    kept = torch.tensor([i for i, record in enumerate(records) if record["split"] == "train"])
    chosen = [records[i] for i in kept.tolist()]
    return kept, chosen, captions.sampling_weights(chosen)


def autocast(device: torch.device):
    """bfloat16 where it pays: CUDA, or a CPU that multiplies it (AMX, AVX512-BF16). On others float32 is four times faster."""
    multiplies = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda" or multiplies)


@contextmanager
def float32_norms(model: nn.Module):
    """Let the group norms of ``model`` read float32: a CPU takes five times as long for bfloat16, and autocast leaves it so."""
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(lambda _, inputs: tuple(tensor.float() for tensor in inputs)) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up to ``peak``, then a cosine down to a fiftieth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def write_line(log: Path, line: dict) -> None:
    """Append to a CSV file; where an earlier version of the stage had other figures, each keeps a column. What a killed
    training had written of this step and of later ones is taken out: they are done again.
    """
    known = []
    if log.exists():
        with log.open(newline="") as file:
            known = list(csv.DictReader(file))
    rows = [row for row in known if int(row["step"]) < line["step"]]
    if rows and len(rows) == len(known) and list(rows[0]) == list(line):
        with log.open("a", newline="") as file:
            csv.DictWriter(file, list(line), lineterminator="\n").writerow(line)
        return
    columns = [*line, *(name for name in (rows[0] if rows else ()) if name not in line)]
    partial = log.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, line])
    os.replace(partial, log)


def train(
    name: str,
    model: nn.Module,
    loss_of: Callable[[nn.Module, torch.Generator, int], tuple[torch.Tensor, dict[str, float | torch.Tensor]]],
    *,
    work: Path,
    steps: int,
    peak_lr: float,
    seed: int = 0,
    ema_decay: float = 0.999,
    weight_decay: float = 0.01,
    checkpoint_seconds: float = 120.0,
) -> nn.Module:
    """Train ``model`` for ``steps`` steps of AdamW and return it with its averaged weights.

    ``loss_of(model, generator, step)`` draws its batch with ``generator`` and returns the loss and figures to show. A
    checkpoint, ``work/checkpoints/name.safetensors``, is written every ``checkpoint_seconds``; a second call resumes from
    it, and returns at once when the stage is done. A line of figures is appended to ``work/logs/name.csv`` every 100 steps.
    """
    device = next(model.parameters()).device
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(parameters.values(), lr=peak_lr, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    average = {key: p.detach().clone() for key, p in parameters.items()}
    path = Path(work) / "checkpoints" / f"{name}.safetensors"
    log = Path(work) / "logs" / f"{name}.csv"
    for folder in (path.parent, log.parent):
        folder.mkdir(parents=True, exist_ok=True)

    def save(step: int) -> None:
        state = {f"model/{key}": p.detach() for key, p in parameters.items()}
        state |= {f"ema/{key}": p for key, p in average.items()}
        for key, p in parameters.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                if p in optimizer.state:
                    state[f"{moment}/{key}"] = optimizer.state[p][moment]
        state["step"] = torch.tensor(step)
        partial = path.with_suffix(".partial")
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, partial)
        os.replace(partial, path)  # a killed run never leaves half a checkpoint

    start = 0
    if path.exists():
        state = load_file(path, device=str(device))
        start = int(state["step"])
        with torch.no_grad():
            for key, p in parameters.items():
                p.copy_(state[f"model/{key}"])
                average[key].copy_(state[f"ema/{key}"])
                if f"exp_avg/{key}" in state:
                    moments = {one: torch.empty_like(p).copy_(state[f"{one}/{key}"]) for one in ("exp_avg", "exp_avg_sq")}
                    optimizer.state[p] = {"step": torch.tensor(float(start), device=device), **moments}

    saved, begun, running = time.monotonic(), time.monotonic(), {}
    for step in tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=10, leave=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak_lr)
        with autocast(device), float32_norms(model):
            loss, figures = loss_of(model, step_generator(seed, step), step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        decay = min(ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], 1 - decay)
        # nothing is read yet: a GPU would wait; in float32, since a mean that runs in bfloat16 stands still
        for key, value in {"loss": loss, "grad": norm, **figures}.items():
            value = torch.as_tensor(value).detach().float()
            running[key] = value if key not in running else 0.98 * running[key] + 0.02 * value
        if (step + 1) % 100 == 0:
            line = {"step": step + 1, "seconds": round(time.monotonic() - begun, 1)} | {
                k: round(float(v), 5) for k, v in running.items()
            }
            write_line(log, line)
        if time.monotonic() - saved > checkpoint_seconds:
            save(step + 1)
            saved = time.monotonic()
    if start < steps:
        save(steps)
    with torch.no_grad():
        for key, p in parameters.items():
            p.copy_(average[key])
    return model.eval()
