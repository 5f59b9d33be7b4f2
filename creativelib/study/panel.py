"""The rating panel: consent, then one picture at a time, rated by keys or clicks (section 7.3, S4.1, Fig. 26)."""

import traitlets
from PIL import Image, ImageDraw, ImageOps

from creativelib.study import HIGHEST, LOWEST
from creativelib.study.asking import AskingPanel, script
from creativelib.study.scales import SCALES
from creativelib.study.schema import CREATIVE
from creativelib.study.session import RatingSession
from creativelib.study.stimuli import Stimulus
from creativelib.widgets import STATIC, font, png

PICTURE = 512  # pixels, the longer side of what is sent to the browser
TILE, GAP, WIDTH = 192, 16, 640  # pixels, of the picture that static pages show
CONSENT = """You will see {count} pictures, one at a time, and say how creative you find each {subject}: from 1, \
boring{beside}, to 5, extremely creative; 0 if it shows no {subject} at all. It takes {minutes}.

Taking part is voluntary. Stop whenever you like; with your code you can go on later. Kept are the code, when you agreed, your \
ratings and how long you looked at each picture, in {place}. No name is asked for: do not put yours into the code. "Withdraw" \
deletes all of it there, and it does not come back when files are merged."""


def meanings(subject: str) -> list[str]:
    """What the numbers of the scale mean, from 0; some have no words."""
    return SCALES[CREATIVE].says(subject)


class RatingPanel(AskingPanel):
    """Asks for consent and a code, then shows one picture at a time; the keys 0 to 5 rate it, u takes the last one back.

    A thin view of ``session``: a rating goes to Python, which keeps it, and only then the browser shows the next picture. It is
    sent nothing of a picture but its pixels and its blinded id. After a kernel restart the same code goes on at the same
    place. Where no kernel runs (on GitHub, in a page) it is a picture of the panel.

    Args:
        session: who rates what.
        subject: the paper's word for what is shown, for example "alien".
        code: go on as this rater if they agreed and began earlier; else it is filled in where the panel asks for one.
        consent: what is to be agreed to; ``{subject}``, ``{count}``, ``{minutes}``, ``{place}`` and
            ``{beside}`` (what an anchor is for; empty without one) are filled in.
    """

    _esm = script("rating.js")
    _css = STATIC / "rating.css"
    DONE = "has rated {} of {} pictures"
    subject = traitlets.Unicode().tag(sync=True)
    meanings = traitlets.List(traitlets.Unicode()).tag(sync=True)
    anchor = traitlets.Bytes().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)

    def __init__(self, session: RatingSession, subject: str, *, code: str | None = None, consent: str = CONSENT):
        count = session.per_rater
        minutes = "about a minute" if count < 15 else f"about {count / 10:.0f} minutes"
        beside = ", like the picture that is shown beside" if session.anchor else ""
        text = consent.format(subject=subject, count=count, minutes=minutes, place=session.store.place, beside=beside)
        super().__init__(
            session,
            code=code,
            consent=text,
            subject=subject,
            meanings=meanings(subject),
            anchor=_sent(session.anchor) if session.anchor else b"",
        )

    # --- what the rater does ------------------------------------------------------------------------------------------

    def _answer(self, message: dict) -> bool:
        match message:
            case {"do": "rate", "stimulus": str(stimulus), "value": int(value), "milliseconds": milliseconds}:
                self.session.rate(value, stimulus, milliseconds)
            case {"do": "undo"}:
                self._note = "Took back the last rating." if self.session.undo() else "There is nothing to take back."
            case _:
                return False
        return True

    # --- what the rater sees ------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        session = self.session
        now = self._now() | {"stimulus": "", "of": session.per_rater}
        current = None
        if session.session is not None:
            try:
                current = session.current
                now["done"], now["of"] = session.progress
                now["phase"] = "done" if current is None else "rate"
            except ValueError:  # deleted by somebody else meanwhile
                session.leave()
        now["stimulus"] = current.id if current else ""
        with self.hold_sync():  # together, or a new number would stand under the old picture
            self.picture = _sent(current) if current else b""
            self.state = now

    def summary(self) -> str:
        """For example "blue-fox has rated 3 of 20"."""
        if self.session.session is None:
            return "nobody has begun"
        return f"{self.session.code} has rated {self.session.progress[0]} of {self.session.progress[1]}"

    def page(self) -> Image.Image:
        """The panel as a picture: the default image, the one to rate, the scale, progress. No numbers of the run."""
        shown = self.session.current if self.session.session is not None else None
        if shown is None:  # before the start and after the end: the first that anybody might get
            shown = next(one for one in self.session.stimuli.values() if one.kind != "anchor")
        page = Image.new("RGB", (WIDTH, TILE + 176), "white")
        draw, plain, bold = ImageDraw.Draw(page), font("DejaVuSans.ttf", 13), font("DejaVuSans-Bold.ttf", 15)
        draw.text((WIDTH / 2, 20), f"How creative is this {self.subject}?", "black", bold, "mm")
        left, both = GAP * 3, self.session.anchor is not None
        if both:
            page.paste(ImageOps.pad(self.session.anchor.image, (TILE // 2, TILE // 2), color="white"), (left, 40 + TILE // 4))
            draw.text(
                (left + TILE // 4, 52 + 3 * TILE // 4), "for comparison:\n1, boring", "black", plain, "ma", align="center"
            )
        page.paste(ImageOps.pad(shown.image, (TILE, TILE), color="white"), ((WIDTH - TILE) // 2, 40))
        step = (WIDTH - GAP) / (HIGHEST - LOWEST + 1)
        for value, words in enumerate(self.meanings):
            x, y = GAP + value * step, TILE + 60
            draw.rounded_rectangle((x, y, x + step - GAP, y + 74), 6, outline="#777777")
            draw.text((x + (step - GAP) / 2, y + 18), str(value), "black", bold, "mm")
            text = words.replace(" ", "\n") if words.count(" ") == 1 else words
            draw.multiline_text((x + (step - GAP) / 2, y + 50), text, "black", font("DejaVuSans.ttf", 11), "mm", align="center")
        draw.text((WIDTH / 2, TILE + 156), self.summary(), "black", plain, "mm")
        return page

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        self.refresh()
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/plain": f"RatingPanel: {self.summary()}", "image/png": png(self.page())}, metadata


def _sent(stimulus: Stimulus) -> bytes:
    """A picture for the browser: no file's metadata, and not larger than is looked at."""
    image = stimulus.image
    image.thumbnail((PICTURE, PICTURE))
    return png(image)
