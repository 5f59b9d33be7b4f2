"""Copies of the searched parameters during a run: in memory, or on the disk where the run has a folder."""

from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import torch

from creativelib.disk import sync
from creativelib.storage import read_tensors, write_tensors

HALF_FROM = 10_000  # numbers of a tensor from which on a copy is kept in half precision
HALF_LARGEST = 65_504.0  # what half precision holds
IN_MEMORY = 32 * 10**6  # bytes of copies that stay in memory though they are on the disk

Parameters = dict[str, torch.Tensor]


def compact(state: Parameters) -> Parameters:
    """``state`` in the precision that is enough to look at it: large tensors in half, unless a number is too large for it."""
    halved = {name for name, tensor in state.items() if tensor.numel() > HALF_FROM and tensor.abs().max() <= HALF_LARGEST}
    return {name: tensor.half() if name in halved else tensor.clone() for name, tensor in state.items()}


def size(state: Parameters) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in state.values())


class Snapshots(Mapping[int, Parameters]):
    """Parameters by number of steps done, in rising order; ``snapshots[step]`` gives them in float32.

    Small tensors are kept as they are, large ones (adapters of a published model) in half precision, which shows the same
    pictures. In a folder there is one file a snapshot, written once; of those only ``IN_MEMORY`` bytes stay in memory.
    """

    def __init__(self):
        self.folder: Path | None = None
        self._memory: dict[int, Parameters] = {}  # all that is in no file, and of the rest what was used last
        self._files: set[int] = set()

    def __getitem__(self, step: int) -> Parameters:
        if step in self._memory:
            state = self._memory[step]
        elif step in self._files:
            state = read_tensors(self.path(step))[0]
        else:
            raise KeyError(step)
        return {name: tensor.float() if tensor.dtype == torch.half else tensor.clone() for name, tensor in state.items()}

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._memory.keys() | self._files))

    def __len__(self) -> int:
        return len(self._memory.keys() | self._files)

    def __contains__(self, step: object) -> bool:
        return step in self._memory or step in self._files

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"{step:06}.safetensors"

    def keep(self, step: int, state: Parameters) -> None:
        """Keep ``state`` under ``step``, in memory until ``write``; what is kept there already is the same and stays."""
        if step not in self:
            self._memory[step] = compact(state)

    def in_file(self, step: int) -> bool:
        """Whether it is on the disk."""
        return step in self._files

    def drop(self, step: int) -> None:
        """Forget a step, also on the disk."""
        self._memory.pop(step, None)
        if step in self._files:
            self._files.discard(step)
            self.path(step).unlink(missing_ok=True)

    def write(self, but: Set[int] = frozenset()) -> None:
        """Write what is in no file yet, in rising order, ``but`` some. After an ``OSError`` all of that is still in memory."""
        for step in sorted(self._memory.keys() - self._files - but):
            write_tensors(self.path(step), self._memory[step], {"kind": "snapshot", "step": step}, readable=False)
            self._files.add(step)
        too_much = sum(map(size, self._memory.values())) - IN_MEMORY
        for step in sorted(self._memory.keys() & self._files):
            if too_much > 0:
                too_much -= size(self._memory.pop(step))

    def move_to(self, folder: Path) -> None:
        """From now on write to ``folder``: all that there is comes into memory, where ``write`` finds it."""
        there = {step for step in self if step in self._memory or self.path(step).is_file()}
        self._memory = {step: self._memory.get(step) or compact(self[step]) for step in there}
        self.folder, self._files = folder, set()

    @classmethod
    def open(cls, folder: Path, last: int) -> "Snapshots":
        """Those in the files of ``folder``, up to the step ``last``."""
        found = cls()
        found.folder = folder
        found._files = {step for step in found._steps_in_folder() if step <= last}
        return found

    def forget_later(self, last: int) -> None:
        """Remove files of steps after ``last``: a run that was killed wrote them after its last saved state."""
        for step in self._steps_in_folder():
            if step > last:
                self.path(step).unlink()
        if self.folder.is_dir():
            sync(self.folder)

    def _steps_in_folder(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdigit()]
