"""What the commands that ask checks know of Dagster: whether it publishes by schedule."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpdau_assets.core.ports.store import Store
    from dpdau_assets.core.settings import Settings


def knowing_the_schedule(store: Store) -> Store:
    """A store that looks into Dagster's home when a check asks whether a schedule publishes; no home is made for it."""
    return replace(store, is_scheduled=partial(_is_scheduled, store.settings))


def _is_scheduled(settings: Settings) -> bool:
    from resources.settings_env import dagster_home

    home = dagster_home(settings)
    if not home.is_dir() or not any(home.iterdir()):
        return False
    from resources.dagster_instance import is_scheduled_in  # Dagster takes seconds to import

    return is_scheduled_in(home)
