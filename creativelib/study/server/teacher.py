"""The teacher's page: who is where, how balanced it is, who is left out, the files and, once it is closed, the figure."""

import asyncio
import hmac
import io
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import pandas as pd
import segno
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from creativelib.study.exclusions import exclusions, rule
from creativelib.study.server.folder import Study
from creativelib.study.server.guard import TEACHER, TEACHER_SECONDS, Limiter, Signer, address, file_policy, read_form

MOST_LINKS = 1000


class Teacher:
    """The routes under ``/teacher``. Everything but signing in needs the cookie that signing in gives."""

    def __init__(self, study: Study, signer: Signer, templates, address: str):
        self.study, self.signer, self.templates, self.address = study, signer, templates, address
        self.tries = Limiter(burst=10, per_second=1 / 12)
        self.routes = [
            Route("/", self._guarded(self.page)),
            Route("/sign-in", self.sign_in, methods=["GET", "POST"]),
            Route("/sign-out", self._form(self.sign_out), methods=["POST"]),
            Route("/qr.svg", self._guarded(self.qr)),
            Route("/links.csv", self._form(self.links), methods=["POST"]),
            Route("/open", self._form(self.open), methods=["POST"]),
            Route("/delete", self._form(self.delete), methods=["POST"]),
            Route("/rename", self._form(self.rename), methods=["POST"]),
            Route("/unite", self._form(self.unite), methods=["POST"]),
            Route("/export.zip", self._guarded(self.export)),
            Route("/backup.sqlite", self._guarded(self.backup)),
            Route("/report.html", self._guarded(self.report)),
            Route("/figure.png", self._guarded(self.figure)),
        ]

    # --- who may ------------------------------------------------------------------------------------------------------

    def _guarded(self, page: Callable) -> Callable:
        async def answer(request: Request) -> Response:
            if not self.signer.is_teacher(request):
                return RedirectResponse("/teacher/sign-in", HTTPStatus.SEE_OTHER)
            return await page(request)

        return answer

    def _form(self, page: Callable) -> Callable:
        async def answer(request: Request) -> Response:
            if not self.signer.is_teacher(request):
                raise HTTPException(403, "Sign in first.")
            form = await read_form(request)
            if not hmac.compare_digest(form.get("form", "").encode(), self.signer.form_token(request).encode()):
                raise HTTPException(403, "This form is not of this sign-in: load the page again.")
            try:
                return await page(request, form)
            except ValueError as error:
                return await self.page(request, problem=str(error))

        return answer

    async def sign_in(self, request: Request) -> Response:
        """The token is typed into a form, never in an address, where logs and histories would keep it."""
        problem = ""
        if request.method == "POST":
            self.tries.require(address(request))
            form = await read_form(request)
            if hmac.compare_digest(form.get("token", "").strip().encode(), self.study.teacher_token.encode()):
                response = RedirectResponse("/teacher/", HTTPStatus.SEE_OTHER)
                response.set_cookie(
                    TEACHER, self.signer.teacher_cookie(), max_age=TEACHER_SECONDS, httponly=True, samesite="strict",
                    secure=request.url.scheme == "https", path="/teacher",
                )  # fmt: skip
                return response
            await asyncio.sleep(0.5)
            problem = "That is not the token of this study. It stands where the server was started."
        status = 403 if problem else 200
        return self.templates.TemplateResponse(request, "sign_in.html", {"problem": problem}, status_code=status)

    async def sign_out(self, request: Request, form: dict) -> Response:
        response = RedirectResponse("/teacher/sign-in", HTTPStatus.SEE_OTHER)
        response.delete_cookie(TEACHER, path="/teacher")
        return response

    # --- the page -----------------------------------------------------------------------------------------------------

    def link(self, request: Request) -> str:
        """What the class opens."""
        base = self.address or f"{request.url.scheme}://{request.headers.get('host', request.url.netloc)}"
        return f"{base.rstrip('/')}/join/{self.signer.token('class', 'class')}"

    async def page(self, request: Request, problem: str = "") -> Response:
        """All of it at one look."""
        facts = await run_in_threadpool(self._facts)
        facts |= {"link": self.link(request), "form": self.signer.form_token(request), "problem": problem}
        return self.templates.TemplateResponse(request, "teacher.html", facts, status_code=400 if problem else 200)

    def _facts(self) -> dict:
        study = self.study
        sessions, ratings, choices = study.store.sessions(), study.store.ratings(), study.store.choices()
        reasons = exclusions(ratings, study.settings)
        pairs, people, now = choices.groupby("session").size(), [], datetime.now(UTC)
        for row in sessions.to_dict("records"):
            wanted = len(study.pairs(row["stimuli"], _whole(row["turn"])))
            seen = row["last"] if isinstance(row["last"], str) else row["started_at"]
            people.append(
                {"code": row["rater"], "scale": row["scale"], "rated": row["rated"], "of": len(row["stimuli"]), "pairs": wanted}
                | {"chosen": int(pairs.get(row["session"], 0)), "ago": _ago(now - datetime.fromisoformat(seen))}
                | {"reason": reasons.get(row["rater"], "")}
            )
            people[-1]["finished"] = people[-1]["rated"] == people[-1]["of"] and people[-1]["chosen"] >= wanted
        return {
            "study": study.settings, "people": people[::-1], "finished": sum(one["finished"] for one in people),
            "ratings": len(ratings), "balance": balance(sessions, ratings, study), "rule": rule(study.settings),
            "place": study.store.place, "count": study.session.per_rater,
        }  # fmt: skip

    async def qr(self, request: Request) -> Response:
        buffer = io.BytesIO()
        segno.make(self.link(request), error="m").save(buffer, kind="svg", scale=6, border=3, xmldecl=False)
        return Response(buffer.getvalue(), media_type="image/svg+xml")

    async def links(self, request: Request, form: dict) -> Response:
        """Personal links, one a line: each is one person, on whatever device they open it."""
        count, first = _number("count", form.get("count", ""), MOST_LINKS), _number("first", form.get("first", "1"), 1_000_000)
        base = self.link(request).rpartition("/")[0]
        text = "".join(f"{base}/{self.signer.token('person', number)}\n" for number in range(first, first + count))
        return _file(text.encode(), "links.csv", "text/csv")

    # --- what the teacher does -----------------------------------------------------------------------------------------

    def _back(self) -> Response:
        return RedirectResponse("/teacher/", HTTPStatus.SEE_OTHER)

    async def open(self, request: Request, form: dict) -> Response:
        await run_in_threadpool(self.study.change, open=form.get("open") == "yes")
        return self._back()

    async def delete(self, request: Request, form: dict) -> Response:
        code, sure = form.get("code", ""), form.get("sure", "")
        if sure != code:
            raise ValueError(f"sure: got {sure!r}; type the code {code!r} to delete that person")
        if left := await run_in_threadpool(self.study.delete, code):
            names = ", ".join(str(path) for path in left)
            raise ValueError(f"{code} is deleted from the study but still stands in {names}: delete these files")
        return self._back()

    async def rename(self, request: Request, form: dict) -> Response:
        await run_in_threadpool(self.study.store.rename, form.get("code", ""), form.get("new", ""))
        return self._back()

    async def unite(self, request: Request, form: dict) -> Response:
        await run_in_threadpool(self.study.store.unite, form.get("code", ""), form.get("other", ""))
        return self._back()

    # --- files --------------------------------------------------------------------------------------------------------

    async def export(self, request: Request) -> Response:
        return _file(await run_in_threadpool(self._zipped), "ratings.zip", "application/zip")

    def _zipped(self) -> bytes:
        from creativelib.study.tidy import zipped

        return zipped(self.study.store, self.study.settings, self.study.fixed())

    async def backup(self, request: Request) -> Response:
        return _file(await run_in_threadpool(self.study.backup_bytes), "ratings.sqlite", "application/vnd.sqlite3")

    async def report(self, request: Request) -> Response:
        self._require_closed()
        from creativelib.study.report import report

        page = await run_in_threadpool(report, self.study)
        return Response(page, media_type="text/html", headers={"content-security-policy": file_policy(page)})

    async def figure(self, request: Request) -> Response:
        self._require_closed()
        from creativelib.study.report import main_figure

        return Response(await run_in_threadpool(main_figure, self.study), media_type="image/png")

    def _require_closed(self) -> None:
        if self.study.settings.open:
            raise HTTPException(409, "Close the study first: who sees the figure while people rate may stop when it pleases.")


def balance(sessions: pd.DataFrame, ratings: pd.DataFrame, study: Study) -> list[dict]:
    """By scale: the fewest and the most people to whom a picture was dealt, and ratings that it has so far."""
    images, found = [one.id for one in study.stimuli.values() if one.kind == "image"], []
    for scale in sorted(set(sessions["scale"])):
        dealt = pd.Series([one for order in sessions["stimuli"][sessions["scale"] == scale] for one in order]).value_counts()
        given = ratings["stimulus"][ratings["scale"] == scale].value_counts()
        dealt, given = (counts.reindex(images, fill_value=0) for counts in (dealt, given))
        found.append({"scale": scale, "pictures": len(images), "dealt": _range(dealt), "rated": _range(given)})
    return found


def _number(name: str, text: str, most: int) -> int:
    """What a field holds, a whole number from 1 to ``most``. Raises ValueError for any other."""
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise ValueError(f"{name}: got {text[:20]!r}; give a whole number from 1 to {most}")
    return int(text)


def _whole(turn) -> int:
    return 0 if pd.isna(turn) else int(turn)


def _range(counts: pd.Series) -> str:
    least, most = counts.min(), counts.max()
    return str(least) if least == most else f"{least} to {most}"


def _ago(time) -> str:
    minutes = int(time.total_seconds() // 60)
    return "now" if minutes < 1 else f"{minutes} min ago" if minutes < 120 else f"{minutes // 60} h ago"


def _file(data: bytes, name: str, kind: str) -> Response:
    return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
