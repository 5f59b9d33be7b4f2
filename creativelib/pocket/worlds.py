"""Both worlds side by side: the pictures that a stage of the training learns from, typical and possible ones.

Rows 0 to 2n - 1 are the n training pictures of the corpus in the two ``views``, one view after the other; the rows after
them are possible pictures. Latents and ImageNet features are computed once, block by block, and kept beside the pictures.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from creativelib.pocket import corpus, possible, teachers, training

TYPICAL_SHARE = 0.3  # of what is drawn from both worlds


def views(images: np.ndarray) -> list[np.ndarray]:
    """Each picture as it is, and mirrored and moved a few pixels: two arrays like ``images``."""
    moved = np.full_like(images, 255)
    moved[:, 3:, 4:] = images[:, :-3, :-4]
    return [images, np.ascontiguousarray(moved[:, :, ::-1])]


@dataclass
class Worlds:
    """What both worlds hold for training.

    Attributes:
        blocks: arrays (n, 128, 128, 3) uint8, in the order of the rows. starts: (blocks + 1,), the first row of each block.
        records: one a row: of the corpus, or of ``possible.Possible.record`` with the row of its first drawing as "first".
        typical: (rows,) bool, true for the corpus. weights: (rows,) how often each is drawn; they sum to 1.
    """

    blocks: list[np.ndarray]
    starts: np.ndarray
    records: list[dict]
    typical: torch.Tensor
    weights: torch.Tensor

    def __len__(self) -> int:
        return int(self.starts[-1])

    def pictures(self, rows: torch.Tensor) -> np.ndarray:
        """The pictures of some rows, (n, 128, 128, 3) uint8."""
        rows = rows.numpy()
        where = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack([self.blocks[block][row - self.starts[block]] for block, row in zip(where, rows, strict=True)])

    def where(self, chosen: torch.Tensor) -> "Worlds":
        """The same worlds, of which only the rows ``chosen`` (rows,) bool are drawn."""
        weights = self.weights * chosen
        return replace(self, weights=weights / weights.sum())

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Random rows (count,) by ``weights``."""
        if not hasattr(self, "_ladder"):  # torch.multinomial would read all weights at every step
            self._ladder = self.weights.double().cumsum(0)
        places = torch.rand(count, dtype=torch.float64, generator=generator) * self._ladder[-1]
        return torch.searchsorted(self._ladder, places).clamp(max=len(self) - 1)


def load(work: Path, images: np.ndarray, records: list[dict], typical_share: float = TYPICAL_SHARE) -> Worlds:
    """Both worlds of a work folder; without a possible world, the typical one alone.

    Args:
        images, records: the corpus. typical_share: of what is drawn from it; within the corpus as ``sampling_weights`` says,
            all possible pictures alike.
    """
    kept, chosen, weights = training.training_split(records)
    blocks = [view for view in views(images[kept.numpy()])]
    all_records, count = 2 * chosen, 2 * len(chosen)
    try:
        more, made = possible.load(work)
    except FileNotFoundError:
        more, made, typical_share = [], [], 1.0
    blocks += more
    weights = torch.cat(
        [typical_share * weights.repeat(2) / 2, torch.full((len(made),), (1 - typical_share) / max(1, len(made)))]
    )
    place = {row: number for number, row in enumerate(kept.tolist())}
    made = [{**record, "first": place[record["sources"][0]]} for record in made]
    starts = np.cumsum([0, *map(len, blocks)])
    return Worlds(blocks, starts, all_records + made, torch.arange(count + len(made)) < count, weights)


def features(worlds: Worlds, work: Path, variant: int) -> torch.Tensor:
    """ImageNet features (rows, 1280) float16 of both worlds, by one variant of EfficientNet-Lite."""

    def look(pictures: np.ndarray) -> torch.Tensor:
        with training.autocast(torch.device("cpu")):
            return teachers.image_features(pictures, variant, corpus.SIZE)

    return described(worlds, Path(work) / f"features-lite{variant}", look)


def described(worlds: Worlds, folder: Path, describe: Callable[[np.ndarray], torch.Tensor]) -> torch.Tensor:
    """What ``describe`` says of all pictures, (rows, ...) float16, block by block: its latents, for instance.

    Each block's result is kept in ``folder`` by the checksum of its pictures: a world may grow anywhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for block in tqdm(worlds.blocks, desc=folder.name, unit="block", leave=False, mininterval=5):
        pictures = np.array(block)
        path = folder / f"{hashlib.sha256(pictures).hexdigest()[:16]}.pt"
        part = torch.load(path, weights_only=True) if path.exists() else None
        if part is None:
            part = describe(pictures).half()
            torch.save(part, path.with_suffix(".partial"))
            path.with_suffix(".partial").replace(path)
        parts.append(part)
    return torch.cat(parts)
