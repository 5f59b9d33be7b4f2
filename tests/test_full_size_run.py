"""What a run of 1,000 steps leaves and takes at the published size: the adapters of Kandinsky 2.1's prior, saved for real.

Sampling the prior is left out, which is an hour of computing; the losses, the steps of AdamW, checks and files are a run's own.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from runs import Checker

from creativelib.full_size import make_part
from creativelib.pullback import Decision
from creativelib.run import CreativeRun
from creativelib.spaces import ConceptualSpace, LoRA
from creativelib.storage import read_tensors

MB = 10**6


def adapter_shapes(rank: int = 10) -> dict[str, torch.Size]:
    """Of the paper's LoRA in the prior of the published size."""
    with torch.device("meta"):
        prior = make_part("kandinsky-2.1", "prior", "prior")
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=list(LoRA.targets)), prior, "creative")
    return {name: parameter.shape for name, parameter in prior.named_parameters() if "lora_" in name}


class Adapters(ConceptualSpace):
    """Numbers of these shapes. Each moves the sample a little, so that each has a gradient."""

    name = "adapters"

    def __init__(self, generator, subject, shapes):
        super().__init__(generator, subject)
        source = torch.Generator().manual_seed(0)
        self._parameters = {
            name: torch.nn.Parameter(torch.randn(shape, generator=source) / 50) for name, shape in shapes.items()
        }
        with torch.no_grad():
            self._start = generator.text_embedding("a vehicle")

    def sample(self, seeds, **sampling):
        moved = torch.stack([parameter.square().mean() for parameter in self._parameters.values()])
        return self._start + moved.sum() * torch.linspace(0.5, 1.0, self._start.shape[1])

    def draw(self, seeds, **sampling):
        return self.sample(seeds), [Image.new("RGB", (8, 8))] * len(seeds)


@dataclass
class InTurn:
    """A creative step, an anchor step: the moments of both are in the state, as in a run of the paper's rule."""

    def __call__(self, creative, anchor):
        self.turn = not getattr(self, "turn", False)
        return Decision(creative, "creative", False) if self.turn else Decision(anchor, "anchor", False)


class Process:
    """What Linux knows of this process, in bytes."""

    @staticmethod
    def _read(file: str, name: str) -> int:
        (line,) = (line for line in Path("/proc/self", file).read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * (1024 if line.endswith("kB") else 1)

    @property
    def memory(self) -> int:
        return self._read("status", "VmRSS")

    @property
    def peak(self) -> int:
        """Of the memory, since ``forget_peak``."""
        return self._read("status", "VmHWM")

    def forget_peak(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    @property
    def written(self) -> int:
        """Given to the kernel to be written to any file."""
        return self._read("io", "wchar")


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not os.access("/proc/self/clear_refs", os.W_OK), reason="Linux tells the peak of the memory"
)
def test_a_run_of_1000_steps_stays_light_at_the_published_size(small_generator, typicality, tmp_path):
    shapes, process = adapter_shapes(), Process()
    assert (len(shapes), sum(map(torch.Size.numel, shapes.values()))) == (160, 3_276_800)
    space = Adapters(small_generator, "vehicle", shapes)
    run = CreativeRun(small_generator, "vehicle", space, typicality, rule=InTurn(), checker=Checker(0.9), check_images=1)
    size = sum(parameter.nbytes for parameter in space.parameters())
    run.run(2, progress=False, folder=tmp_path)  # gradients and moments are there from now on
    process.forget_peak()
    memory, before = process.memory, process.written
    run.run(1000, progress=False, folder=tmp_path)
    written, more = process.written - before, process.peak - memory
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    found = {"parameters": size, "written after step 2": written, "on the disk": on_disk}
    found["memory beyond parameters, gradient and moments"] = more
    print(f"\nMB: {'; '.join(f'{what} {count / MB:.1f}' for what, count in found.items())}; a state in {run.save_every} steps")
    assert run.steps == 1000 and run.stopped == "" and {row["kind"] for row in run.history} == {"creative", "anchor"}
    # before its third step a run writes its parameters: once to go on from, half of that to look at
    assert written + 1.5 * size <= 900 * MB and on_disk <= 900 * MB and more <= 60 * MB
    assert list(run.snapshots) == [0, 2, *range(10, 1001, 10)] and run.result_step == 1000
    state = read_tensors(tmp_path / "run")[0]
    for name, parameter in space.named_parameters().items():
        assert torch.equal(state[f"now/{name}"], parameter.detach())  # full precision to go on
        assert 0 < (run.snapshots[1000][name] - parameter.detach()).abs().max() < 1e-3  # half to look
