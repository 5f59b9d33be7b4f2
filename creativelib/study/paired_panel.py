"""The paired panel: three pictures of one method beside three of another, chosen by arrow keys or clicks (Fig. 7)."""

import traitlets
from PIL import Image, ImageDraw

from creativelib.study.asking import AskingPanel, script
from creativelib.study.pairing import GAP, SHOWN, TILE, PairedSession
from creativelib.widgets import STATIC, font, png

CONSENT = """You will see {count} times two sets of three pictures, side by side, and say which set is more creative. It takes \
about {minutes}.

Taking part is voluntary. Stop whenever you like; with your code you can go on later. Kept are the code, when you agreed and \
your choices, in {place}. No name is asked for: do not put yours into the code. "Withdraw" deletes all of it there, and it \
does not come back when files are merged. A choice cannot be taken back singly."""
MARGIN = 16  # pixels, of the picture that static pages show


class PairedPanel(AskingPanel):
    """Asks for consent and a code, then shows one pair at a time; the arrow keys, or a click, choose the more creative side.

    A thin view of ``session``: a choice goes to Python, which keeps it, and only then the browser shows the next pair. It is
    sent pixels, blinded ids and the subject's word, and nothing of the methods. After a kernel restart the same code goes on at
    the same place. Where no kernel runs (on GitHub, in a page) it is a picture of the panel.

    Args:
        session: who chooses between what.
        code: go on as this rater if they agreed and began earlier; else it is filled in where the panel asks for one.
        consent: what is to be agreed to; ``{count}``, ``{minutes}`` and ``{place}`` are filled in.
    """

    _esm = script("paired.js")
    _css = (STATIC / "rating.css").read_text(encoding="utf-8") + (STATIC / "paired.css").read_text(encoding="utf-8")
    DONE = "has done {} of {} pairs"
    left = traitlets.Bytes().tag(sync=True)
    right = traitlets.Bytes().tag(sync=True)

    def __init__(self, session: PairedSession, *, code: str | None = None, consent: str = CONSENT):
        count = len(session.subjects)
        minutes = "a minute" if count < 10 else f"{count / 8:.0f} minutes"
        text = consent.format(count=count, minutes=minutes, place=session.store.place)
        super().__init__(session, code=code, consent=text)

    def _answer(self, message: dict) -> bool:
        match message:
            case {"do": "choose", "side": "left" | "right" as side, "left": str(left)}:
                self.session.choose(side, left)
                return True
        return False

    def _draw(self) -> None:
        session, pair = self.session, None
        now = self._now() | {"left": "", "subject": "", "of": len(session.subjects)}
        if session.session is not None:
            try:
                pair = session.current
                now["done"], now["of"] = session.progress
                now["phase"] = "done" if pair is None else "choose"
            except ValueError:  # deleted by somebody else meanwhile
                session.leave()
        if pair:
            now |= {"left": pair[0].stimulus.id, "subject": pair[0].subject}
        with self.hold_sync():  # together, or a new question would stand over the old pictures
            self.left, self.right = (one.stimulus.png for one in pair) if pair else (b"", b"")
            self.state = now

    def summary(self) -> str:
        """For example "blue-fox has done 3 of 6 pairs"."""
        if self.session.session is None:
            return "nobody has begun"
        return "{} has done {} of {} pairs".format(self.session.code, *self.session.progress)

    def page(self) -> Image.Image:
        """The panel as a picture: the question, a pair, progress."""
        pair = self.session.current if self.session.session is not None else None
        if pair is None:  # before the start and after the end: the first that anybody might get
            pair = tuple(self.session.sets[name] for name in self.session.order(0)[0])
        wide = SHOWN * TILE + (SHOWN - 1) * GAP
        page = Image.new("RGB", (2 * wide + 4 * MARGIN, TILE + 120), "white")
        draw, plain, bold = ImageDraw.Draw(page), font("DejaVuSans.ttf", 13), font("DejaVuSans-Bold.ttf", 15)
        middle = page.width / 2
        draw.text((middle, 20), f"Which is more creative? The subject is: {pair[0].subject}.", "black", bold, "mm")
        for number, (one, words) in enumerate(zip(pair, ("← left", "right →"), strict=True)):
            x = MARGIN + number * (wide + 2 * MARGIN)
            draw.rounded_rectangle((x - 8, 38, x + wide + 8, TILE + 80), 6, outline="#777777")
            page.paste(one.stimulus.image, (x, 68))
            draw.text((x + wide / 2, 53), words, "black", bold, "mm")
        draw.text((middle, TILE + 102), self.summary(), "black", plain, "mm")
        return page

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        self.refresh()
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/plain": f"PairedPanel: {self.summary()}", "image/png": png(self.page())}, metadata
