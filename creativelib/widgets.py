"""Widgets of the notebooks. The state of each is a plain object; the ipywidgets view is a thin layer over it."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from PIL import Image, ImageFont

STATIC = Path(__file__).parent / "static"


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib; Pillow's own has no accents."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


class Filmstrip:
    """Pictures of a run by iteration, to scrub through with a slider or with the arrow keys.

    Args:
        frames: iteration -> picture; all of one size.
        notes: iteration -> one line under the picture, for example its surprise in nats.

    Shown in a notebook it is a slider; where no kernel runs (on GitHub, in a page) it is a strip of all pictures.

    Raises:
        ValueError: no frames, or notes for other iterations than the frames'.
    """

    def __init__(self, frames: Mapping[int, Image.Image], notes: Mapping[int, str] | None = None):
        if not frames:
            raise ValueError("frames: got none; give at least one picture, as {iteration: picture}")
        if notes is not None and set(notes) != set(frames):
            raise ValueError(f"notes: got iterations {sorted(notes)}; allowed are those of the frames, {sorted(frames)}")
        self.frames = dict(sorted(frames.items()))
        self.notes = dict(notes) if notes is not None else {iteration: "" for iteration in frames}
        self.iteration = next(iter(self.frames))

    def show(self, iteration: int) -> Image.Image:
        """Move to ``iteration`` and return its picture. Raises KeyError naming the iterations that there are."""
        if iteration not in self.frames:
            raise KeyError(f"iteration: got {iteration}; allowed are {list(self.frames)}")
        self.iteration = iteration
        return self.frames[iteration]

    def strip(self, columns: int = 8) -> Image.Image:
        """All pictures side by side, ``columns`` a row, in the order of the iterations."""
        pictures = list(self.frames.values())
        width, height = pictures[0].size
        rows = -(-len(pictures) // columns)
        page = Image.new("RGB", (min(columns, len(pictures)) * width, rows * height), "white")
        for index, picture in enumerate(pictures):
            page.paste(picture, (index % columns * width, index // columns * height))
        return page

    def widget(self):
        """The ipywidgets view: a slider (arrow keys move it), the picture, and its note."""
        import ipywidgets

        slider = ipywidgets.SelectionSlider(
            options=list(self.frames), value=self.iteration, description="Iteration", continuous_update=True,
            layout=ipywidgets.Layout(width="420px"),
        )  # fmt: skip
        picture = ipywidgets.Image(
            value=png(self.frames[self.iteration]), format="png", layout=ipywidgets.Layout(width="256px")
        )
        note = ipywidgets.Label(self.notes[self.iteration])

        def moved(change) -> None:
            picture.value = png(self.show(change["new"]))
            note.value = self.notes[self.iteration]

        slider.observe(moved, names="value")
        return ipywidgets.VBox([slider, picture, note])

    def description(self) -> str:
        """The strip in words: a text alternative, for who cannot see it."""
        notes = ", ".join(self.notes[iteration] or f"iteration {iteration}" for iteration in self.frames)
        return f"A strip of {len(self.frames)} pictures, from left to right: {notes}."

    def _repr_mimebundle_(self, include=None, exclude=None) -> tuple[dict, dict]:
        bundle = dict(self.widget()._repr_mimebundle_())
        bundle["text/plain"] = f"Filmstrip of iterations {list(self.frames)}"
        bundle["image/png"] = png(self.strip())
        return bundle, {"image/png": {"alt": self.description()}}
