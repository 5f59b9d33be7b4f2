"""The reverse proxy of the compose file as a process: Caddy with the shipped Caddyfile, TLS, and the server behind it."""

import httpx
import pytest
from studies import Person, proxied  # noqa: F401

from creativelib.study.server.folder import Study
from creativelib.study.server.guard import HEADERS, LARGEST_BODY


def client(proxied, mine: str, base: str | None = None, **headers) -> httpx.Client:  # noqa: F811
    """A browser of the address ``mine`` that trusts the proxy's authority and no other."""
    transport = httpx.HTTPTransport(local_address=mine, verify=proxied.proxy.verify)
    return httpx.Client(base_url=base or proxied.proxy.base, transport=transport, headers=headers)


@pytest.fixture
def person(proxied):  # noqa: F811
    """Makes people who speak with the server from an address of their own; headers are sent with all of their requests."""
    study = Study(proxied.folder)

    def make(mine: str, base: str | None = None, **headers) -> Person:
        one = Person(proxied.server, study)
        one.web = client(proxied, mine, base, **headers)
        return one

    yield make
    study.close()


def require_headers(answer: httpx.Response) -> None:
    """Each of ours, once: a proxy that adds its own would leave a browser two policies."""
    for name, value in (HEADERS | {"strict-transport-security": "max-age=31536000"}).items():
        assert answer.headers.get_list(name) == [value], f"{answer.url}: {name}"


def test_a_whole_rating_through_tls(person, proxied):  # noqa: F811
    one = person("127.0.0.2", origin=proxied.proxy.base, **{"sec-fetch-site": "same-origin"})
    study = one.study
    page = one.web.get(f"/join/{one.link}", headers={"accept-encoding": "gzip"})
    assert page.status_code == 200 and page.headers["content-encoding"] == "gzip" and "I agree to take part" in page.text
    require_headers(page)
    for path in ("/static/study.js", "/static/study.css", "/", "/teacher/sign-in", "/nothing", "/api/state"):
        require_headers(one.web.get(path))
    assert one.finish()["finished"] and one.answer.headers["set-cookie"].count("Secure") == 1
    require_headers(one.answer)
    state = one.web.get("/api/state").json()
    assert set(state["rated"].values()) > {0} and len(state["rated"]) == len(state["order"]) == 7
    seen = one.web.get(f"/picture/{state['order'][0]}.png")
    assert seen.content.startswith(b"\x89PNG")
    require_headers(seen)
    ratings = study.store.ratings()
    assert dict(zip(ratings["stimulus"], ratings["value"], strict=True)) == state["rated"]
    for size, refused in ((LARGEST_BODY + 1, {413}), (200_000, {413, 502})):  # the proxy's own limit; Caddy before 2.7 says 502
        large = one.web.post("/api/answers", content=b"x" * size, headers={"content-type": "application/json"})
        assert large.status_code in refused, (size, large.text)
    plain = httpx.get(f"http://localhost:{proxied.proxy.plain}/join/{one.link}")
    assert plain.status_code == 308 and plain.headers["location"].startswith("https://localhost")
    signed = one.web.post("/teacher/sign-in", data={"token": proxied.server.token})
    assert signed.status_code == 303 and "secure" in signed.headers["set-cookie"].lower()
    assert proxied.proxy.base in one.web.get("/teacher/").text
    assert one.web.post("/api/withdraw", json={"sure": True}).status_code == 200
    assert study.store.ratings().empty


def test_who_asks_is_what_the_proxy_says_and_nobody_else(person, proxied):  # noqa: F811
    """The limit of three new people a minute is that of an address; one that is made up must not help, nor harm others."""
    straight = proxied.server.base
    for mine, base in (("127.0.0.3", None), ("127.0.0.4", None), ("127.0.0.5", straight), ("127.0.0.6", straight)):
        found = []
        for number in range(4):
            forged = {"x-forwarded-for": f"198.51.100.{number}", "x-forwarded-proto": "http" if base is None else "https"}
            forged |= {"forwarded": f"for=198.51.100.{number}", "x-forwarded-host": "elsewhere.example"}
            one = person(mine, base, **forged)
            one.join()
            found.append(one.answer.status_code)
            assert ("strict-transport-security" in one.answer.headers) == (base is None)
            if one.answer.status_code == 200:
                assert ("Secure" in one.answer.headers["set-cookie"]) == (base is None)
                one.web.post("/api/withdraw", json={"sure": True})
        assert found == [200, 200, 200, 429], (mine, base)
