"""What a store keeps of people after an input, as bytes: two stores with the same keys are alike if these are."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from dpdau_assets.core.dates import epochs_of_day
from dpdau_assets.core.event_shape import PLAIN, EventShape
from dpdau_assets.core.ports.store import Store
from dpdau_assets.core.publication.ingest import ingest
from dpdau_assets.core.state.activity import process_days
from resources.reading.event_files import FileOptions, Locations, event_files


def make_keys(store: Store, days: Iterable[date]) -> None:
    """Draw the keys of the epochs that these days are kept under; copies of the store then share them."""
    rotation, longest = store.settings.hash_salt_rotation_days, store.settings.mau_window_days
    store.state.salts.epoch_keys({epoch for day in days for epoch in epochs_of_day(day, rotation, longest)})


def state_after(
    store: Store, at: Locations, shape: EventShape = PLAIN, options: FileOptions | None = None
) -> dict[str, bytes]:
    """The files of the state, by name, once an input was taken in and folded. None of its rows may be bad."""
    report = ingest(event_files(at, options), store, shape=shape)
    assert report.rejected == 0, report.rejections
    process_days(list(report.days), store)
    return state_of(store)


def state_of(store: Store) -> dict[str, bytes]:
    """The files of the state, by name."""
    folder = store.settings.data_dir / "activity"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
