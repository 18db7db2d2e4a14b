"""The pages about the API: /docs shows the OpenAPI document, /docs/errors says what each code of an error means.

All of their files are served from here, and nothing is loaded from elsewhere. They need no key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from dpdau_assets.api.answering import is_known
from dpdau_assets.api.error_table import ERRORS, Explained

router = APIRouter(prefix="/docs", include_in_schema=False)

_HTML = "text/html; charset=utf-8"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICY_OF_TEXT = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
_A_DAY = "public, max-age=86400"

_SWAGGER, _OURS = "fastapi_offline", "dpdau_assets.api"
_FILES = {
    "swagger-ui-bundle.js": (_SWAGGER, "text/javascript; charset=utf-8"),
    "swagger-ui.css": (_SWAGGER, "text/css; charset=utf-8"),
    "favicon.png": (_SWAGGER, "image/png"),
    "initialiser.js": (_OURS, "text/javascript; charset=utf-8"),
    "pages.css": (_OURS, "text/css; charset=utf-8"),
}
"""Every file that is served, with the package in whose folder `static` it lies."""


@dataclass(frozen=True)
class _File:
    content: bytes
    digest: str
    media_type: str


@router.get("")
async def docs() -> Response:
    """The page that shows the document. Its addresses are relative: a proxy may serve it under another path."""
    scripts = "".join(f'<script src="{_link(name)}"></script>' for name in ("swagger-ui-bundle.js", "initialiser.js"))
    page = _page(
        "dpdau API",
        _link("swagger-ui.css"),
        f'<main id="swagger-ui" data-document="openapi.json"></main>{scripts}<noscript>The document itself is at '
        '<a href="openapi.json">openapi.json</a>.</noscript>',
        icon=_link("favicon.png"),
    )
    return _of_text(page, _POLICY)


@router.get("/errors")
async def errors() -> Response:
    """The page that every error's `type` leads to."""
    rows = "".join(map(_row, ERRORS))
    page = _page(
        "Errors of the dpdau API",
        _link("pages.css", "static"),
        "<main><h1>Errors</h1><p>Every error has the shape of RFC 9457. Its <code>code</code> stays the same, and its "
        "<code>type</code> leads here. What was sent is never repeated in it.</p><table><thead><tr><th>code</th>"
        f"<th>status</th><th>means</th><th>what to do</th></tr></thead><tbody>{rows}</tbody></table></main>",
        icon=_link("favicon.png", "static"),
    )
    return _of_text(page, _POLICY_OF_TEXT)


@router.get("/static/{name}")
async def static(request: Request, name: str) -> Response:
    """A file of these pages."""
    if name not in _FILES:
        raise HTTPException(404)
    file = _file(name)
    headers = {"ETag": f'"{file.digest}"', "Cache-Control": _A_DAY}
    if is_known(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(file.content, 200, headers, file.media_type)


@cache
def _file(name: str) -> _File:
    package, media_type = _FILES[name]
    content = files(package).joinpath("static", name).read_bytes()
    return _File(content, sha256(content).hexdigest(), media_type)


def _link(name: str, folder: str = "docs/static") -> str:
    """Where a page finds the file: another address for another content, so that no old one is taken for it."""
    return f"{folder}/{name}?v={_file(name).digest[:12]}"


def _page(title: str, stylesheet: str, body: str, icon: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="stylesheet" href="{stylesheet}"><link rel="icon" href="{icon}"></head><body>{body}</body></html>'
    )


def _row(row: Explained) -> str:
    cells = "".join(f"<td>{_as_html(text)}</td>" for text in (str(row.status), row.meaning, row.remedy))
    return f'<tr id="{row.code}"><th scope="row"><a href="#{row.code}">{row.code}</a></th>{cells}</tr>'


def _as_html(markdown: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(markdown))


def _of_text(page: str, policy: str) -> Response:
    return Response(page.encode(), 200, {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}, _HTML)
