"""What the environment says of ids and of times without a zone, as settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpdau_assets.core.errors import BadSetting
from resources.settings_env import read_settings


@pytest.mark.parametrize(
    ("written", "fixed"),
    [
        ("", "none"),
        ("none", "none"),
        ("trim", "trim"),
        (" casefold, nfc ,trim", "nfc,trim,casefold"),
        ("trim,trim", "trim"),
    ],
)
def test_how_ids_are_normalised_is_fixed_in_one_way_however_it_is_written(
    written: str, fixed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which has no .env
    settings = read_settings({"USER_ID_NORMALIZE": written, "NAIVE_ZONE": "Europe/Berlin"})
    assert settings.fixed_settings()["USER_ID_NORMALIZE"] == fixed
    assert settings.fixed_settings()["NAIVE_ZONE"] == "Europe/Berlin"


def test_a_way_of_normalising_that_there_is_not_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSetting, match="USER_ID_NORMALIZE=nfkc"):
        read_settings({"USER_ID_NORMALIZE": "nfkc"})
