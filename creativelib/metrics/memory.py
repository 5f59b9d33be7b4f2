"""Is a result a copy? The nearest of the pictures that the generator learned from, without having them.

Compact features of the corpus ship with the project: the metric network's, in their first principal directions, as bytes, with
label and set of each picture; once of the pictures as they are, once of the same in grey. Where the corpus is built
(``make pocket-corpus``), the picture itself can be shown.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances_argmin_min

from creativelib.metrics.features import features
from creativelib.storage import data_folder, read_tensors, require_equal, write_tensors

DIMS = {"picture": 88, "structure": 36}  # of the views that are kept; together they must stay below 1.5 MiB
KIND = "corpus memory"
COLUMNS = ("label", "set", "split")
LEARNED = "train"  # the split that the generator learned from


class Memory:
    """Codes (n, dims) int8 of n pictures' features in one view, and how to code others.

    Attributes:
        codes: (n, dims) int8. mean: (f,). directions: (dims, f), orthonormal rows. records: label, set, split of each picture.
        learned: (m,) which of them the generator learned from; the others were held out.
    """

    def __init__(self, codes: np.ndarray, mean: np.ndarray, directions: np.ndarray, scale: float, records: list[dict]):
        self.codes, self.mean, self.directions, self.scale, self.records = codes, mean, directions, scale, records
        self.learned = np.flatnonzero([record["split"] == LEARNED for record in records])
        self._units = _unit(codes[self.learned].astype(np.float64))

    @classmethod
    def fit(cls, rows: np.ndarray, records: list[dict], dims: int = DIMS["picture"]) -> "Memory":
        """From features (n, f) of n pictures and what is known of each (``label``, ``set``, ``split``).

        Raises:
            ValueError: counts differ, fewer pictures than ``dims``, or none that was learned from.
        """
        if len(rows) != len(records):
            raise ValueError(f"records: got {len(records)} for {len(rows)} pictures; give one for each")
        if not any(record["split"] == LEARNED for record in records):
            raise ValueError(f"records: got none whose split is {LEARNED!r}; give those that the generator learned from")
        if len(rows) < dims:
            raise ValueError(f"rows: got {len(rows)} pictures for dims={dims}; give more, or ask for fewer dims")
        pca = PCA(dims, svd_solver="covariance_eigh").fit(rows)
        coordinates = (rows - pca.mean_) @ pca.components_.T
        scale = 127 / float(np.quantile(np.abs(coordinates), 0.9999))
        kept = [{key: record.get(key, "") for key in COLUMNS} for record in records]
        codes = np.clip(np.rint(coordinates * scale), -127, 127).astype(np.int8)
        return cls(codes, pca.mean_, pca.components_, scale, kept)

    def nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index (N,) of the training picture nearest to features (N, f), and the cosine (N,) of both about the corpus's mean.

        Pictures that were held out are not looked at: nobody can have copied them. Memory does not grow with N.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(f"rows: got shape {rows.shape}; give (N, {len(self.mean)}), features of this memory's view")
        units = _unit((rows - self.mean) @ self.directions.T)
        best, distance = pairwise_distances_argmin_min(units, self._units)
        return self.learned[best], 1 - distance**2 / 2

    def picture(self, index: int, work: str | Path) -> Image.Image | None:
        """The corpus's own picture ``index``, where the corpus is built in the folder ``work``; else ``None``.

        ``None`` too where it was built from other sets, so that another picture stands at that place.
        """
        folder = Path(work) / "corpus"
        try:
            images = np.load(folder / "images.npy", mmap_mode="r")
            records = json.loads((folder / "records.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        own = self.records[index]
        if len(records) != len(self.records) or any(records[index].get(key, "") != own[key] for key in own):
            return None
        return Image.fromarray(np.array(images[index]))

    @classmethod
    def load(cls, path: str | Path | None = None, view: str = "picture") -> "Memory":
        """Read a view of what ``save`` wrote, by default of the shipped one.

        Raises:
            FileNotFoundError: there is none. ValueError: the file holds something else, or not this view.
        """
        path = data_folder() / "comparison" / "corpus" if path is None else path
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": KIND}, path)
        if view not in facts["scale"]:
            raise ValueError(f"view: got {view!r}; choose one of {', '.join(map(repr, facts['scale']))}")
        columns = [[facts[key][place] for place in tensors[key].tolist()] for key in COLUMNS]
        records = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]
        arrays = (tensors[f"{view}/{name}"].double().numpy() for name in ("mean", "directions"))
        return cls(tensors[f"{view}/codes"].numpy(), *arrays, facts["scale"][view], records)


def save(path: str | Path, memories: dict[str, Memory]) -> Path:
    """Write memories of the same pictures, by view, to ``path.safetensors``; the records once, each of their words once.

    Raises:
        ValueError: they are not of the same pictures.
    """
    records, *others = (memory.records for memory in memories.values())
    if any(other != records for other in others):
        raise ValueError("memories: got some of other pictures; give views of the same ones")
    tensors, facts = {}, {"kind": KIND, "scale": {view: memory.scale for view, memory in memories.items()}}
    for key in COLUMNS:
        facts[key], places = np.unique([record[key] for record in records], return_inverse=True)
        facts[key], tensors[key] = facts[key].tolist(), torch.from_numpy(places.astype(np.int16))
    for view, memory in memories.items():
        tensors[f"{view}/codes"] = torch.from_numpy(memory.codes)
        tensors[f"{view}/mean"] = torch.from_numpy(memory.mean).half()
        tensors[f"{view}/directions"] = torch.from_numpy(memory.directions).half().contiguous()
    return write_tensors(path, tensors, facts, readable=False)


@dataclass(frozen=True)
class Distance:
    """How far pictures are from all that the generator learned from, in units of how far plain pictures of a subject are.

    Attributes:
        memory: of one view. unit: mean of one minus the cosine of plain pictures to their nearest training pictures. limit: the
            distance that 95 % of the plain pictures stay under.
    """

    memory: Memory
    unit: float
    limit: float

    @classmethod
    def fit(cls, memory: Memory, plain: np.ndarray, quantile: float = 0.95) -> "Distance":
        """From features (n, f) of plain pictures, in the memory's view.

        Raises:
            ValueError: no plain pictures, or each of them a copy.
        """
        own = 1 - memory.nearest(plain)[1] if len(plain) else np.zeros(1)
        unit = float(own.mean())
        if not unit > 1e-9:
            raise ValueError(f"plain: got {len(plain)} pictures, none of which is away from a training picture; give others")
        return cls(memory, unit, float(np.quantile(own / unit, quantile)))

    def nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index (N,) of the nearest training picture of features (N, f), and the distance (N,): 1 is as plain pictures are."""
        index, cosine = self.memory.nearest(rows)
        return index, (1 - cosine) / self.unit


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12)


def main() -> None:
    """``python -m creativelib.metrics.memory``: from the corpus in the work folder to ``data/comparison/``."""
    from creativelib.metrics.drawing import edge_strength, wholeness_range
    from creativelib.pocket import corpus, taxonomy

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, default=Path("build/pocket"), help="work folder with the corpus (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("data/comparison"), help="folder to write to (default: %(default)s)")
    options = parser.parse_args()
    images, records = corpus.load(options.work)
    real = {}
    for subject in taxonomy.SUBJECTS:
        shown = images[[index for index, record in enumerate(records) if subject in record["nouns"]]]
        real[subject] = {"pictures": len(shown), **wholeness_range(shown), "edge_strength": float(edge_strength(shown).mean())}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "real.json").write_text(json.dumps(real, indent=1) + "\n")
    memories = {view: Memory.fit(features(images, view), records, dims) for view, dims in DIMS.items()}
    path = save(options.out / "corpus", memories)
    print(f"{len(images)} pictures: {path}, {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
