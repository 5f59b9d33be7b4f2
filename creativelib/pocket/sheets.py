"""Contact sheets: many small pictures on one page, for the model card and for whoever trains."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def sheet(images: Sequence[np.ndarray], path: Path, columns: int = 8, side: int = 96) -> None:
    """Save pictures (N, H, W, 3) uint8 as one JPEG of ``columns`` columns, each picture ``side`` pixels wide."""
    small = [Image.fromarray(np.asarray(image)).resize((side, side), Image.Resampling.LANCZOS) for image in images]
    rows = -(-len(small) // columns)
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for index, image in enumerate(small):
        page.paste(image, (index % columns * side, index // columns * side))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=60, optimize=True, progressive=True)
