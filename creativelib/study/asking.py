"""What the rating panel and the paired panel have in common: a page that keeps what is answered."""

import anywidget
import traitlets

from creativelib.study.codes import canonical, suggested_code
from creativelib.study.database import Unavailable
from creativelib.study.seat import Seat
from creativelib.widgets import STATIC


def script(name: str) -> str:
    """A panel's script: what all have in common, then its own. One text, for a widget's script has no place to import from."""
    return "".join((STATIC / part).read_text(encoding="utf-8") for part in ("asking.js", name))


class AskingPanel(anywidget.AnyWidget):
    """A thin view of a seat, ``session``: what is answered goes to Python, which keeps it, and only then the browser shows what
    comes next. What could not be kept the page sends again. A panel says how it asks by ``_answer`` and ``_draw``.

    Args:
        session: who sits there. code: go on as this person if they agreed and began earlier; else it is filled in where the
            panel asks for one. consent: what is to be agreed to.
    """

    DONE = "has done {} of {}"  # said of a code that is known
    consent = traitlets.Unicode().tag(sync=True)
    state = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Seat, *, code: str | None, consent: str, **shown):
        self.session, self._note, self._error, self._turn = session, "", "", 0
        self._suggested, self._known = code or suggested_code(), ""
        if code and session.begun(code):
            session.join(code, consent=True)  # agreed when they began
        super().__init__(consent=consent, **shown)
        self.on_msg(self._received)
        self._draw()

    def refresh(self) -> None:
        """Show what code, or another process, has changed."""
        self._draw()

    def _received(self, _widget, message: dict, _buffers) -> None:
        self._note = self._error = ""
        self._turn += 1
        kept = True
        try:
            self._do(message)
        except Unavailable as error:  # a full disk, a lock, a database that went away: the page sends the same again
            self._error, kept = f"Not kept: {error}.", False
        except (ValueError, OSError) as error:
            self._error = str(error)
        try:
            self._draw()
        except Unavailable as error:
            self._error, kept = self._error or f"Not shown: {error}.", False
        if not kept:
            self.state = self.state | {"error": f"{self._error} Try again.", "note": "", "turn": self._turn, "again": True}

    def _do(self, message: dict) -> None:
        session = self.session
        match message:
            case {"do": "begin", "code": str(code), "consent": agreed, "again": again}:
                begun, code = session.begun(code), canonical(code)
                if begun and agreed and again != code:  # somebody else may have taken the same word
                    self._known = code
                    self._note = f"{code} {self.DONE.format(*begun)} already. Was it you? If not, choose another code."
                    return
                session.join(code, consent=agreed, text=self.consent)
                self._known = ""
            case {"do": "leave"}:
                self._suggested = session.code or self._suggested
                session.leave()
            case {"do": "withdraw"}:
                code, self._suggested = session.code, suggested_code()
                session.withdraw()
                self._note = f"Everything of {code} is deleted."
            case _ if not self._answer(message):
                raise ValueError(f"message: got {message}; the page is of another version of creativelib: load it again")

    def _answer(self, message: dict) -> bool:
        """Keep an answer; whether the message was one."""
        raise NotImplementedError

    def _draw(self) -> None:
        """Say in ``state`` what is to be seen now."""
        raise NotImplementedError

    def _now(self) -> dict:
        """What every panel's ``state`` says."""
        now = {"note": self._note, "error": self._error, "turn": self._turn, "code": self.session.code or self._suggested}
        return now | {"again": False, "known": self._known, "phase": "consent", "done": 0}
