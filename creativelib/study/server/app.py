"""The web application of a study: a study's folder in, an ASGI application out."""

import logging
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from creativelib.study.database import Unavailable
from creativelib.study.server.folder import Study
from creativelib.study.server.guard import Headers, Limiter, Signer, WholeRequests
from creativelib.study.server.pages import Pages
from creativelib.study.server.teacher import Teacher

HERE = Path(__file__).parent


def make_app(study: Study, *, joins_per_minute: int = 240, address: str = "") -> Starlette:
    """The application: raters' pages at ``/``, the teacher's at ``/teacher``.

    Args:
        joins_per_minute: new people from one network address: a class shares one. address: under which browsers reach the
            server, for links and the QR code on the teacher's page; by default what the teacher's browser asks for.
    """
    signer = Signer(study.secret)
    loader = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    templates = Jinja2Templates(env=loader)
    pages = Pages(study, signer, templates, Limiter(burst=joins_per_minute, per_second=joins_per_minute / 60))
    teacher = Teacher(study, signer, templates, address)
    routes = [
        *pages.routes,
        Mount("/teacher", routes=teacher.routes),
        Mount("/static", app=StaticFiles(directory=HERE / "static")),
        Route("/alive", _alive),
    ]

    async def refused(request: Request, error: HTTPException) -> Response:
        return _said(request, error.status_code, error.detail, error.headers)

    async def unavailable(request: Request, error: Exception) -> Response:
        logging.getLogger("creativelib.study").error("%s", error)  # the answer stays in the browser and comes again
        return _said(request, 503, "The answers cannot be written just now. Nothing is lost: this page tries again.", None)

    handlers = {HTTPException: refused, Unavailable: unavailable}
    return Starlette(routes=routes, middleware=[Middleware(WholeRequests), Middleware(Headers)], exception_handlers=handlers)


def _said(request: Request, status: int, message: str, headers) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": "refused", "message": message}, status, headers)
    return PlainTextResponse(message, status, headers)


async def _alive(request: Request) -> Response:
    return PlainTextResponse("yes")
