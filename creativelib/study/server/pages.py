"""What a rater's browser asks for: the page, where they are, a picture, and the answers that it sends."""

import logging
import re
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from creativelib.study.codes import suggested_code
from creativelib.study.scales import SCALES
from creativelib.study.server.folder import Study
from creativelib.study.server.guard import RATER, Limiter, Signer, address, read_json

LOG = logging.getLogger("creativelib.study")
AT_ONCE = 50  # answers in one request
SOURCES = {  # parameters of panel providers that are kept, and handed back at the end
    "PROLIFIC_PID", "STUDY_ID", "SESSION_ID", "assignmentId", "hitId", "workerId", "turkSubmitTo",
}  # fmt: skip
KEY = re.compile(r"[0-9a-f]{32}")  # what a browser names itself and its answers by
GONE = {"error": "gone", "message": "Your answers were deleted, or this link is no longer valid."}


class Pages:
    """The routes of raters.

    Args:
        study: what is rated. signer: of links and cookies. templates: Starlette's. joins: limit of new people by address.
    """

    def __init__(self, study: Study, signer: Signer, templates, joins: Limiter):
        self.study, self.signer, self.templates = study, signer, templates
        self.joins, self.requests = joins, Limiter(burst=120, per_second=10)
        self.routes = [
            Route("/", self.page),
            Route("/join/{link}", self.page),
            Route("/go/{link}", self.go),
            Route("/api/state", self.state),
            Route("/api/join", self.join, methods=["POST"]),
            Route("/api/answers", self.answers, methods=["POST"]),
            Route("/api/withdraw", self.withdraw, methods=["POST"]),
            Route("/api/leave", self.leave, methods=["POST"]),
            Route("/picture/{name}", self.picture),
        ]

    # --- the page -----------------------------------------------------------------------------------------------------

    async def page(self, request: Request) -> Response:
        """The one page of raters. Without a link or a cookie it says where links come from."""
        link = request.path_params.get("link", "")
        known = self._session(request) is not None
        welcome = known or self.signer.read("class", link) is not None or self.signer.read("person", link) is not None
        facts = {"study": self.study.settings, "link": link, "welcome": welcome, "consent": self.study.consent()}
        facts |= {"version": self.study.version(), "count": self.study.session.per_rater}
        return self.templates.TemplateResponse(request, "rate.html", facts, status_code=200 if welcome else 403)

    async def go(self, request: Request) -> Response:
        """A rater's own link, on another device for example."""
        self.joins.require(address(request))
        mine = self.signer.read("rater", request.path_params["link"])
        if mine is None:
            raise HTTPException(403, "This link is not valid: it may not be whole. Copy all of it.")
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        self._remember(request, response, mine)
        return response

    def _remember(self, request: Request, response: Response, mine: list) -> None:
        response.set_cookie(
            RATER, self.signer.token("rater", mine), max_age=90 * 86400, httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip

    def _session(self, request: Request) -> list | None:
        """[id of the rater, id of their session] of who asks."""
        return self.signer.read("rater", request.cookies.get(RATER))

    def _mine(self, request: Request) -> list:
        mine = self._session(request)
        if mine is None:
            raise HTTPException(401, "open your link again")
        self.requests.require(mine[0])
        return mine

    def _who(self, mine: list) -> str:
        """What a page calls the person that it is of: another tab may have made the browser somebody else's."""
        return self.study.rater_id(f"who {mine[1]}")[:16]

    def _same(self, mine: list, body: dict) -> None:
        if body.get("who", self._who(mine)) != self._who(mine):
            raise HTTPException(409, "Somebody else goes on in this browser now. Load this page again, or open your own link.")

    # --- what the page asks for -----------------------------------------------------------------------------------------

    async def state(self, request: Request) -> Response:
        """Where somebody is: before the start, or the order of their pictures, what they rated and chose."""
        if self._session(request) is None:
            return JSONResponse({"joined": False, "open": self.study.settings.open})
        mine = self._mine(request)
        return JSONResponse(*await run_in_threadpool(self._state, mine))

    def _state(self, mine: list) -> tuple[dict, int]:
        try:
            view = self.study.store.view(mine[1])
        except ValueError:
            return GONE, HTTPStatus.GONE
        rater = view["rater"]  # another one than the cookie's where two of one person were joined
        study, settings, scale = self.study, self.study.settings, SCALES[view["scale"]]
        pairs = study.pairs(view["order"], view["turn"])
        chosen = {frozenset(pair) for pair in view["chosen"]}
        finished = len(view["given"]) == len(view["order"]) and all(frozenset(pair) in chosen for pair in pairs)
        found = {
            "joined": True,
            "who": self._who(mine),
            "open": settings.open,
            "order": view["order"],
            "rated": view["given"],
            "scale": view["scale"],
        }
        found |= {"pairs": [[*pair, frozenset(pair) in chosen] for pair in pairs], "words": scale.says(settings.subject)}
        found |= {"question": scale.asks(settings.subject), "break_every": settings.break_every, "finished": finished}
        found |= {"code": study.store.code(rater), "link": "/go/" + self.signer.token("rater", mine)}
        if finished:
            found["completion"] = {"code": study.completion_code(rater), "url": study.completion_url(rater)}
        return found, HTTPStatus.OK

    async def join(self, request: Request) -> Response:
        """Somebody has agreed. The same browser, or the same personal link, gets the same person however often it asks."""
        self.joins.require(address(request))
        body = await read_json(request)
        key = body.get("key")
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise HTTPException(400, "key: give 32 hexadecimal digits")
        link = body.get("link") if isinstance(body.get("link"), str) else ""
        if (person := self.signer.read("person", link)) is not None:
            key = f"person {person}"
        elif self.signer.read("class", link) is None:
            raise HTTPException(403, "This link is not valid: it may not be whole. Copy all of it.")
        if not self.study.settings.open:
            raise HTTPException(403, "The study is closed.")
        if body.get("agreed") is not True or body.get("version") != self.study.version():
            raise HTTPException(409, "The text has changed since this page was opened: load it again and read it.")
        given = body.get("source") if self.study.settings.paid and isinstance(body.get("source"), dict) else {}
        source = {name: _text(value) for name, value in given.items() if name in SOURCES and isinstance(value, str)}
        try:
            mine = await run_in_threadpool(self._join, self.study.rater_id(key), source)
        except ValueError:
            return JSONResponse(GONE, HTTPStatus.GONE)
        facts, status = await run_in_threadpool(self._state, mine)
        response = JSONResponse(facts, status)
        self._remember(request, response, mine)
        return response

    def _join(self, rater: str, source: dict) -> list:
        store, code = self.study.store, suggested_code()
        while store.known(code):  # somebody else has it
            code = suggested_code()
        found = store.rater(code, consent=True, text=self.study.consent(), id=rater, source=source)
        return [found, self.study.deal(found)]

    async def answers(self, request: Request) -> Response:
        """Answers of a browser, each with a name of its own. What is answered with 200 is on disk; again changes nothing."""
        mine = self._mine(request)
        body = await read_json(request)
        self._same(mine, body)
        answers = body.get("answers")
        if not isinstance(answers, list) or len(answers) > AT_ONCE:
            raise HTTPException(400, f"answers: give a list of at most {AT_ONCE}")
        if not self.study.settings.open:
            raise HTTPException(403, "The study is closed.")
        return JSONResponse(*await run_in_threadpool(self._keep, mine, answers))

    def _keep(self, mine: list, answers: list) -> tuple[dict, int]:
        done = {}
        for answer in answers:
            name = answer.get("answer") if isinstance(answer, dict) else None
            if not isinstance(name, str) or not KEY.fullmatch(name):
                raise HTTPException(400, "answer: give each a name of 32 hexadecimal digits")
            try:
                done[name] = "kept" if self._keep_one(mine[1], answer) else "known"
            except ValueError as error:  # it can never be kept: the page must not send it for ever
                done[name] = f"refused: {error}"
        facts, status = self._state(mine)
        return (facts | {"done": done}, status) if status == HTTPStatus.OK else (facts, status)

    def _keep_one(self, session: str, answer: dict) -> bool:
        store = self.study.store
        match answer:
            case {"do": "rate", "stimulus": str(stimulus), "value": value, "milliseconds": milliseconds, "answer": name}:
                return store.rate(session, stimulus, value, milliseconds, answer=name, correct=False)
            case {"do": "back", "stimulus": str(stimulus), "answer": name}:
                return store.take_back(session, stimulus, answer=name)
            case {"do": "choose", "left": str(left), "right": str(right), "chosen": str(chosen)}:
                view = store.view(session)
                if (left, right) not in self.study.pairs(view["order"], view["turn"]):
                    raise ValueError("left, right: this pair was not asked for")
                return store.choose(session, left, right, chosen)
        raise ValueError("do: give rate, back or choose, with their fields")

    async def withdraw(self, request: Request) -> Response:
        """Delete everything of who asks."""
        mine = self._mine(request)
        body = await read_json(request)
        self._same(mine, body)
        if body.get("sure") is not True:
            raise HTTPException(400, "sure: say true")
        await run_in_threadpool(self._withdraw, mine[1])
        response = JSONResponse({"joined": False, "open": self.study.settings.open})
        response.delete_cookie(RATER)
        return response

    def _withdraw(self, session: str) -> None:
        try:
            code = self.study.store.code(self.study.store.view(session)["rater"])
        except ValueError:  # they did before; their files may not be mended yet
            return self.study.finish_erasing()
        for path in self.study.delete(code):  # the log must not name who is to be forgotten
            LOG.warning("%s still names somebody who has withdrawn and is no file of this study's: delete it", path)

    async def leave(self, request: Request) -> Response:
        """Let somebody else use this browser; nothing is deleted."""
        body = await read_json(request)
        if (mine := self._session(request)) is not None:
            self._same(mine, body)
        response = JSONResponse({"joined": False, "open": self.study.settings.open})
        response.delete_cookie(RATER)
        return response

    async def picture(self, request: Request) -> Response:
        """The pixels of a picture, for those who are to rate it; no file's metadata."""
        mine = self._mine(request)
        one = self.study.stimuli.get(request.path_params["name"].removesuffix(".png"))
        order = await run_in_threadpool(self._order, mine[1])
        if one is None or one.id not in order:
            raise HTTPException(404, "there is no such picture")
        pixels = await run_in_threadpool(self.study.pixels, one)
        return Response(pixels, media_type="image/png", headers={"cache-control": "private, max-age=86400, immutable"})

    def _order(self, session: str) -> list[str]:
        try:
            return self.study.store.order(session)
        except ValueError:
            return []


def _text(value: str) -> str:
    """What stays of a parameter; halves of letters, which no address can say, do not."""
    return value[:200].encode(errors="ignore").decode()
