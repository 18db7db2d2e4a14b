"""The whole application on a store, asked in this process: routes, errors, keys and what bounds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from fastapi.testclient import TestClient

from dpdau_assets.api.app import app_on
from dpdau_assets.core.ports.store import Store

KEY = "0f6d1c9b8a7e4f32b5d16a90c3e8f7d2415b6a09"


@contextmanager
def asking(store: Store, **settings: Any) -> Iterator[TestClient]:
    """A client with a key of all scopes; of another one, its headers say so. Errors of the server are raised here."""
    chosen = {"service_api_key": KEY, "rate_limit_per_minute": 1_000_000, **settings}
    store = replace(store, settings=replace(store.settings, **chosen))
    with TestClient(app_on(store.settings, store), headers={"X-API-Key": KEY}) as client:
        yield client
