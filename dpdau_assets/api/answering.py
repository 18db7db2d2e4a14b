"""How reads are answered: in the representation that is accepted, from what was made before, with an ETag.

An answer follows from the ledger and the request alone, so it is kept for as long as the ledger's edition is the same.
What is refused follows from the day as well, and is not kept.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from threading import Lock

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from dpdau_assets.api.problems import Problem, ProblemRaised
from dpdau_assets.api.service import service_of
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.reporting.as_json import as_json

JSON = "application/json"
CSV = "text/csv; charset=utf-8; header=present"
ARROW = "application/vnd.apache.arrow.stream"

MOST_KEPT = 2_048
LARGEST_KEPT = 1_000_000
"""Bytes of one answer."""
MOST_BYTES_KEPT = 32_000_000

EDITION_SECONDS = 0.02
"""How long a worker takes the ledger to be as it was when it last asked."""
PATIENCE_SECONDS = 0.25
"""How long it does so while it asks again: else all who come meanwhile would ask too."""

NOT_ACCEPTABLE = Problem(
    "NotAcceptable",
    406,
    "Not acceptable",
    "The Accept header admits none of the media types that this is served as.",
    f"Accept {JSON}, text/csv or {ARROW}.",
)

Make = Callable[[], bytes]
_CACHING = {"Cache-Control": "private, no-cache"}  # kept by who asked, and asked for again each time


@dataclass(frozen=True)
class CachedAnswer:
    """A body that was made, and its ETag."""

    body: bytes
    etag: str


class AnswerCache:
    """What a worker has answered from one store, for as long as it is true.

    Which edition the ledger has is asked once in EDITION_SECONDS, by one thread: an answer may be behind by so much,
    and by PATIENCE_SECONDS while that is being asked.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._edition = ""
        self._asked_at = -PATIENCE_SECONDS
        self._is_asking = False
        self._kept: OrderedDict[Hashable, CachedAnswer] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def at_hand(self, question: Hashable) -> CachedAnswer | None:
        """The answer, if it is kept and known to be true. Asks nobody."""
        age = self._clock() - self._asked_at
        if age >= EDITION_SECONDS and not (self._is_asking and age < PATIENCE_SECONDS):
            return None
        with self._lock:
            asked = (self._edition, question)
            if asked in self._kept:
                self._kept.move_to_end(asked)
            return self._kept.get(asked)

    def of(self, question: Hashable, make: Make) -> CachedAnswer:
        """The answer to a question, made if it was not asked in this edition of the ledger yet. Asks the ledger."""
        asked_at = self._clock()
        self._is_asking = True
        try:
            edition = self.store.accountant.edition()  # before it is made: what is made may be newer, and never older
        finally:
            self._is_asking = False
        with self._lock:
            if asked_at >= self._asked_at:  # else another thread has asked since
                self._edition, self._asked_at = edition, asked_at
        known = self.at_hand(question) if self._edition == edition else None
        if known is not None:
            return known
        body = make()
        answer = CachedAnswer(body, f'"{sha256(body).hexdigest()}"')
        self._keep((edition, question), answer)
        return answer

    def _keep(self, asked: Hashable, answer: CachedAnswer) -> None:
        if len(answer.body) > LARGEST_KEPT:
            return
        with self._lock:
            if asked not in self._kept:
                self._kept[asked] = answer
                self._bytes += len(answer.body)
            while len(self._kept) > MOST_KEPT or self._bytes > MOST_BYTES_KEPT:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= len(oldest.body)


def cache_of(request: Request) -> AnswerCache:
    """What this worker has answered from the store that it has open."""
    store = service_of(request).store
    cache = getattr(request.app.state, "answers", None)
    if cache is None or cache.store is not store:
        cache = request.app.state.answers = AnswerCache(store)
    return cache


async def answered(request: Request, question: Hashable, forms: Mapping[str, Make]) -> Response:
    """The answer to a question, in the form that the request accepts; 304 for who has it already.

    `forms` are media types, the first being served to who accepts all alike, with what makes the body of each, in a
    thread. A single one is served whatever is accepted. Raises the problem NotAcceptable, and whatever making the body
    raises.
    """
    is_chosen = len(forms) > 1
    media_type = accepted(_listed(request, "accept") if is_chosen else None, tuple(forms))
    if media_type is None:
        raise ProblemRaised(NOT_ACCEPTABLE)
    cache, asked = cache_of(request), (question, media_type)
    answer = cache.at_hand(asked) or await run_in_threadpool(cache.of, asked, forms[media_type])
    vary = {"Vary": "Accept"} if is_chosen else {}
    headers = {"ETag": answer.etag, **_CACHING, **vary}
    if is_known(_listed(request, "if-none-match"), answer.etag):
        return Response(status_code=304, headers=headers)
    return Response(answer.body, 200, headers, media_type)


def to_json(value: object) -> bytes:
    """A result in its public form, as UTF-8."""
    return json.dumps(as_json(value), separators=(",", ":"), allow_nan=False).encode()


def _listed(request: Request, header: str) -> str | None:
    """All headers of this name as one list; None without any."""
    values = request.headers.getlist(header)
    return ",".join(values) if values else None


# --- Accept (RFC 9110, 12.5.1) -----------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def accepted(accept: str | None, served: tuple[str, ...]) -> str | None:
    """Which of the media types that are served is liked best, of several the first; None if none is admitted.

    Parameters of a range other than `q` are passed over, and so is a range that is none.
    """
    if accept is None or not accept.strip():
        return served[0]
    ranges = [found for part in accept.split(",") if (found := _range(part)) is not None]
    liked = {media_type: _quality(media_type.partition(";")[0], ranges) for media_type in served}
    best = max(served, key=lambda media_type: liked[media_type])
    return best if liked[best] > 0 else None


def _range(part: str) -> tuple[str, float] | None:
    """A media range in lower case, and its quality."""
    media_range, *parameters = (each.strip().lower() for each in part.split(";"))
    kind, slash, subtype = media_range.partition("/")
    if not (kind and slash and subtype) or (kind == "*" and subtype != "*"):
        return None
    given = [value for name, _, value in (each.partition("=") for each in parameters) if name.strip() == "q"]
    try:
        quality = float(given[0]) if given else 1.0
    except ValueError:
        return None
    return (media_range, quality) if 0 <= quality <= 1 else None


def _quality(media_type: str, ranges: list[tuple[str, float]]) -> float:
    """How much the most specific range that it lies in likes it, 0 outside of all."""
    for wider in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        qualities = [quality for media_range, quality in ranges if media_range == wider]
        if qualities:
            return max(qualities)
    return 0.0


# --- If-None-Match (RFC 9110, 13.1.2) ----------------------------------------------------------------------------


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether a client that sent this header has the answer of this ETag, weak or strong."""
    if if_none_match is None:
        return False
    tags = [tag.strip() for tag in if_none_match.split(",")]  # ours hold no comma
    return "*" in tags or any(tag.removeprefix("W/") == etag for tag in tags)
