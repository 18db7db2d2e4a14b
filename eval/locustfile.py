"""The clients of the load test, for Locust; `python -m eval.load_test` starts it, and says what it needs to know."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task
from locust.env import Environment

from eval.load_test import problem, published_in, requests_of

_KEY, _SEED = os.environ["SERVICE_API_KEY"], int(os.environ["LOAD_SEED"])
_PUBLISHED = published_in(Path(os.environ["LOAD_PUBLISHED"]))
_numbers = count()


class Client(FastHttpUser):
    """One client: it asks one thing after the other, and remembers the ETags of what it has read."""

    def on_start(self) -> None:
        """Its requests follow from the seed and its number."""
        self._requests = requests_of(_SEED, next(_numbers), _PUBLISHED)
        self._etags: dict[str, str] = {}
        self._wait = 0.0

    def wait_time(self) -> float:
        """Seconds until the next request."""
        return self._wait

    @task
    def ask(self) -> None:
        """The next request. An answer that is not as expected is a failure."""
        request = next(self._requests)
        self._wait = request.wait
        headers = {"X-API-Key": _KEY}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        known = self._etags.get(request.path)
        if known is not None:
            headers["If-None-Match"] = known
        with self.client.request(
            request.method, request.path, name=request.name, data=request.body, headers=headers, catch_response=True
        ) as answer:
            etag = str(answer.headers["ETag"]) if answer.headers and "ETag" in answer.headers else None
            wrong = problem(request, answer.status_code, etag, known, _json(answer.text))
            if wrong is not None:
                answer.failure(wrong)
                return
            answer.success()
            if etag:
                self._etags[request.path] = etag


@events.quitting.add_listener
def leave_figures(environment: Environment, **_: Any) -> None:
    """The last figures, for the process that has started this one."""
    Path(os.environ["LOAD_FIGURES"]).write_text(json.dumps(environment.stats.serialize_stats()))


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "")
    except ValueError:
        return None
