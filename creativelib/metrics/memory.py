"""Is a result a copy? The nearest of the pictures that the generator learned from, without having them.

Compact features of the corpus ship with the project: the metric network's, in their first principal directions, as bytes, with
label and set of each picture. Where the corpus is built (``make pocket-corpus``), the picture itself can be shown.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA

from creativelib.metrics.features import features
from creativelib.storage import data_folder, read_tensors, require_equal, write_tensors

DIMS = 88
KIND = "corpus memory"


class Memory:
    """Codes (n, dims) int8 of n pictures' features, and how to code others.

    Attributes:
        codes: (n, dims) int8. mean: (f,). directions: (dims, f), orthonormal rows. records: label, set, split of each picture.
    """

    def __init__(self, codes: np.ndarray, mean: np.ndarray, directions: np.ndarray, scale: float, records: list[dict]):
        self.codes, self.mean, self.directions, self.scale, self.records = codes, mean, directions, scale, records
        self._units = _unit(codes.astype(np.float64))

    @classmethod
    def fit(cls, rows: np.ndarray, records: list[dict], dims: int = DIMS) -> "Memory":
        """From features (n, f) of n pictures and what is known of each (``label``, ``set``, ``split``).

        Raises:
            ValueError: counts differ, or fewer pictures than ``dims``.
        """
        if len(rows) != len(records):
            raise ValueError(f"records: got {len(records)} for {len(rows)} pictures; give one for each")
        if len(rows) < dims:
            raise ValueError(f"rows: got {len(rows)} pictures for dims={dims}; give more, or ask for fewer dims")
        pca = PCA(dims, svd_solver="covariance_eigh").fit(rows)
        coordinates = (rows - pca.mean_) @ pca.components_.T
        scale = 127 / float(np.quantile(np.abs(coordinates), 0.9999))
        kept = [{key: record.get(key, "") for key in ("label", "set", "split")} for record in records]
        codes = np.clip(np.rint(coordinates * scale), -127, 127).astype(np.int8)
        return cls(codes, pca.mean_, pca.components_, scale, kept)

    def nearest(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index (N,) of the nearest picture of features (N, f), and the cosine (N,) of both about the corpus's mean."""
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise ValueError(f"rows: got shape {rows.shape}; give (N, {len(self.mean)}), features of the view 'picture'")
        cosines = _unit((rows - self.mean) @ self.directions.T) @ self._units.T
        best = cosines.argmax(1)
        return best, cosines[np.arange(len(rows)), best]

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

    def save(self, path: str | Path) -> Path:
        """Write ``path.safetensors``, the records inside."""
        tensors = {"codes": torch.from_numpy(self.codes), "mean": torch.from_numpy(self.mean).half()}
        tensors["directions"] = torch.from_numpy(self.directions).half().contiguous()
        columns = {key: [record[key] for record in self.records] for key in ("label", "set", "split")}
        return write_tensors(path, tensors, {"kind": KIND, "scale": self.scale, **columns}, readable=False)

    @classmethod
    def load(cls, path: str | Path | None = None) -> "Memory":
        """Read what ``save`` wrote, by default the shipped one.

        Raises:
            FileNotFoundError: there is none. ValueError: the file holds something else.
        """
        path = data_folder() / "comparison" / "corpus" if path is None else path
        tensors, facts = read_tensors(path)
        require_equal(facts, {"kind": KIND}, path)
        records = [
            dict(zip(("label", "set", "split"), row, strict=True))
            for row in zip(facts["label"], facts["set"], facts["split"], strict=True)
        ]
        arrays = (tensors[name].double().numpy() for name in ("mean", "directions"))
        return cls(tensors["codes"].numpy(), *arrays, facts["scale"], records)


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
    rows = features(images)
    path = Memory.fit(rows, records).save(options.out / "corpus")
    print(f"{len(images)} pictures: {path}, {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
