"""The labelling widget: a reader marks unappealing images of a run, and so makes its negative clusters (section 5.4)."""

import textwrap
import time
from collections.abc import Callable, Sequence

import anywidget
import numpy as np
import traitlets
from PIL import Image, ImageDraw, ImageOps

from creativelib.labels import Cluster, Labels
from creativelib.widgets import STATIC, font, png

FIRST_CLUSTER = "cluster 1"
THUMBNAIL = 192  # pixels, the longer side of what is sent to the browser
TILE, FRAME, GAP = 96, 6, 8  # pixels, of the picture that static pages show


class Labelling(anywidget.AnyWidget):
    """A grid of images to mark by click or keys, beside an optional map of their embeddings to mark on by a lasso.

    A thin view of ``labels``: what the reader does goes to Python, which journals it, and only then the browser shows it.
    Where no kernel runs (on GitHub, in a page) it is a picture of the grid with its marks. Without a reader,
    ``labels.replay(path)`` marks; show the widget again, or call ``refresh``, to see what code has changed.

    Args:
        labels: which image is in which cluster; its journal keeps every mark.
        images: pictures in the order of ``labels.ids``.
        points: (N, 2), where the images lie on the map, in the same order, for example two principal coordinates.
        on_fit: called with ``labels`` by the button "Fit cluster", which is left out without it. Text that it returns is
            shown; so is the text of an error that it raises, which is kept in ``failure`` with its traceback.
        on_run: the same for the button "Run again".

    Marks go into the cluster in ``cluster``, at first the one named last in ``labels``, or a new "cluster 1".

    Raises:
        ValueError: the images or points are not as many as the ids, or points are not finite numbers (N, 2).
    """

    _esm = STATIC / "labelling.js"
    _css = STATIC / "labelling.css"
    ids = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pictures = traitlets.List(traitlets.Bytes()).tag(sync=True)
    points = traitlets.List().tag(sync=True)
    actions = traitlets.List(traitlets.Unicode()).tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        labels: Labels,
        images: Sequence[Image.Image],
        points: np.ndarray | None = None,
        *,
        on_fit: Callable[[Labels], object] | None = None,
        on_run: Callable[[Labels], object] | None = None,
    ):
        count = len(labels.ids)
        if len(images) != count:
            raise ValueError(f"images: got {len(images)}; give one for each of the {count} ids of labels, in their order")
        places = np.empty((0, 2)) if points is None else np.asarray(points, dtype=float)
        if points is not None and (places.shape != (count, 2) or not np.isfinite(places).all()):
            raise ValueError(
                f"points: got the shape {places.shape}; give finite numbers, ({count}, 2), in the order of the ids"
            )
        self.labels, self.images = labels, [image.convert("RGB") for image in images]
        self.failure: BaseException | None = None
        self._functions = {action: function for action, function in (("fit", on_fit), ("run", on_run)) if function}
        self._busy = self._note = self._error = ""
        self._turn = 0  # of the reader; as it grows, every answer is a change that the browser gets
        self.cluster = FIRST_CLUSTER
        self._choose_known()
        thumbnails = [image.copy() for image in self.images]
        for thumbnail in thumbnails:
            thumbnail.thumbnail((THUMBNAIL, THUMBNAIL))
        pictures = [png(thumbnail) for thumbnail in thumbnails]
        super().__init__(ids=labels.ids, pictures=pictures, points=places.tolist(), actions=list(self._functions))
        self.on_msg(self._received)
        self._draw()

    def refresh(self) -> None:
        """Show what code, or another process, has changed in the labels. Raises ValueError where the journal is gone."""
        self.labels.refresh()
        self._choose_known()
        self._draw()

    # --- what the reader does -----------------------------------------------------------------------------------------

    def _received(self, _widget, message: dict, _buffers) -> None:
        self._note = self._error = ""
        self._turn += 1
        try:
            self._do(message)
        except (ValueError, OSError) as error:
            self._error = str(error)
        self._draw()

    def _do(self, message: dict) -> None:
        match message:
            case {"do": "toggle", "image": str(image)} if self.labels.labels.get(image) == self.cluster:
                self.labels.clear(image)
            case {"do": "toggle", "image": str(image)}:
                self.labels.mark(image, self.cluster)
            case {"do": "mark", "images": list(images)}:
                self.labels.mark_many(images, self.cluster)
            case {"do": "cluster", "name": name}:
                self.cluster = self.labels.add(name)
            case {"do": "undo"}:
                undone = self.labels.undo()
                self._note = f"Took back: {undone}." if undone else "There is nothing to take back."
                self._choose_known()
            case {"do": action} if action in self._functions:
                self._call(action)
            case _:
                raise ValueError(f"message: got {message}; the page is of another version of creativelib: load it again")

    def _choose_known(self) -> None:
        """The cluster named last, unless the current one has been named (and that not been taken back)."""
        names = [cluster.name for cluster in self.labels.clusters]
        if self.cluster not in names:
            self.cluster = (names or [FIRST_CLUSTER])[-1]

    def _call(self, action: str) -> None:
        """Call ``on_fit`` or ``on_run``; the browser shows that it goes on, and then how it ended."""
        if action == "fit" and not self.labels.labels:
            raise ValueError("No image is marked yet; mark one or more, then fit.")
        self._busy, self._note, self.failure = action, "Marking waits until it has finished.", None
        self._draw()
        self._note = ""
        started = time.monotonic()
        try:
            said = self._functions[action](self.labels)
        except KeyboardInterrupt as error:  # "Interrupt the kernel"
            self.failure, self._error = error, "Interrupted before it was finished."
        except Exception as error:  # whatever the notebook's function raises
            self.failure, self._error = error, f"{type(error).__name__}: {error}"
        else:
            done = "Fit cluster" if action == "fit" else "Run again"
            self._note = said if isinstance(said, str) else f"{done}: finished in {time.monotonic() - started:.0f} s."
        finally:
            self._busy = ""

    # --- what the reader sees -----------------------------------------------------------------------------------------

    def clusters(self) -> list[Cluster]:
        """The clusters of ``labels``, and the current one if it has no image yet."""
        clusters = self.labels.clusters
        if self.cluster not in [cluster.name for cluster in clusters]:
            clusters.append(Cluster.numbered(self.cluster, len(clusters)))
        return clusters

    def progress(self) -> str:
        """For example "3 of 24 marked; A blotchy: 2, B muddy: 1"."""
        counts = self.labels.counts
        clusters = [f"{cluster.sign} {cluster.name}: {counts.get(cluster.name, 0)}" for cluster in self.clusters()]
        marked, of = self.labels.progress
        return f"{marked} of {of} marked; {', '.join(clusters)}"

    def _draw(self) -> None:
        self.state = {
            "labels": self.labels.labels,
            "clusters": [{"name": item.name, "colour": item.colour, "sign": item.sign} for item in self.clusters()],
            "cluster": self.cluster,
            "progress": self.progress(),
            "busy": self._busy,
            "note": self._note,
            "error": self._error,
            "turn": self._turn,
        }

    def picture(self, columns: int = 8) -> Image.Image:
        """The grid, ``columns`` images a row, each marked one in a frame of its cluster's colour with the cluster's letter."""
        step = TILE + 2 * FRAME + GAP
        columns = min(columns, len(self.images))
        width, height = columns * step + GAP, -(-len(self.images) // columns) * step + GAP
        text = textwrap.wrap(self.progress(), max(12, width // 8))
        page = Image.new("RGB", (width, height + 20 * len(text)), "white")
        draw, bold = ImageDraw.Draw(page), font("DejaVuSans-Bold.ttf", 15)
        clusters, labels = {cluster.name: cluster for cluster in self.clusters()}, self.labels.labels
        for index, (image_id, image) in enumerate(zip(self.labels.ids, self.images, strict=True)):
            left, top = GAP + index % columns * step, GAP + index // columns * step
            box = (left, top, left + step - GAP - 1, top + step - GAP - 1)
            cluster = clusters.get(labels.get(image_id))
            draw.rectangle(box, fill=cluster.colour if cluster else "white", outline=cluster.colour if cluster else "#bbbbbb")
            page.paste(ImageOps.pad(image, (TILE, TILE), color="white"), (left + FRAME, top + FRAME))
            if cluster:
                right = left + max(24, draw.textlength(cluster.sign, bold) + 12)
                draw.rectangle((left, top, right, top + 24), fill=cluster.colour)
                draw.text(((left + right) / 2, top + 12), cluster.sign, "white", bold, "mm")
        draw.multiline_text((GAP, height - 4), "\n".join(text), "black", font("DejaVuSans.ttf", 13))
        return page

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        self.refresh()
        data, metadata = super()._repr_mimebundle_(**kwargs)
        words = f"Labelling: {self.progress()}"
        return {**data, "text/plain": words, "image/png": png(self.picture())}, {**metadata, "image/png": {"alt": words}}
