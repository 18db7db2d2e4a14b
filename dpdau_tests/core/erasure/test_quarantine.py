"""Which text names somebody: her id as a whole, whatever it is made of, and no longer word that it is a part of."""

from __future__ import annotations

import pytest

from dpdau_assets.core.identity import Named


@pytest.mark.parametrize(
    ("user_id", "text"),
    [
        ("anna", "anna"),
        ("anna", "exports/anna.csv"),
        ("anna", "susanna-anna-2.csv"),
        ("anna@example.org", "/mail/anna@example.org.jsonl"),
        ("a.b-c d", "x/a.b-c d/e.csv"),
        ("7", "part-7.csv"),
        ("-7", "part-7.csv"),
        ("zoë", "zoë.csv"),
        (".", "events.csv"),
    ],
)
def test_an_id_that_stands_alone_is_found(user_id: str, text: str) -> None:
    if user_id in ("-7", "."):  # between letters, where it cannot be told from an ordinary name
        assert not Named([user_id]).is_in(text) and Named([user_id]).is_in(f"x/{user_id}/y")
    else:
        assert Named(["nobody", user_id]).is_in(text)


@pytest.mark.parametrize(
    ("user_id", "text"), [("anna", "susanna.csv"), ("anna", "anna_2.csv"), ("7", "part-70.csv"), ("é", "éa"), ("", "x")]
)
def test_a_part_of_a_longer_word_is_not_the_id(user_id: str, text: str) -> None:
    assert not Named([user_id]).is_in(text)
