"""What is made with an epoch's secret key."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.facts import EpochKey
from dpdau_assets.core.identity import KeyedHash, content_hash, data_version, epoch_key_commitment, user_key

KEY = EpochKey(225, bytes(range(32)))
OTHER = EpochKey(225, bytes(32))


def test_a_user_key_is_the_first_eight_bytes_of_an_hmac_unsigned() -> None:
    """RFC 4231, test case 2."""
    assert user_key(b"Jefe", "what do ya want for nothing?") == 0x5BDCC146BF60754E


@given(st.binary(min_size=32, max_size=32), st.text())
def test_a_user_key_reads_the_id_as_utf8(secret: bytes, user_id: str) -> None:
    full = hmac.new(secret, user_id.encode("utf-8"), hashlib.sha256).digest()
    assert user_key(secret, user_id) == int.from_bytes(full[:8], "big") < 2**64


@given(st.binary(max_size=130), st.text())
def test_a_key_that_is_hashed_once_gives_everybody_the_same_user_key(secret: bytes, user_id: str) -> None:
    keyed = KeyedHash(secret)
    for _ in range(2):
        assert int.from_bytes(keyed.key_bytes(user_id), "big") == user_key(secret, user_id)


def test_ids_that_look_alike_stay_apart() -> None:
    composed, decomposed = "\u00e9", "e\u0301"
    assert len({user_key(KEY.secret, user) for user in (composed, decomposed, "E", "e", "e ", "e\0")}) == 6


def test_a_commitment_names_the_key_and_does_not_show_it() -> None:
    commitment = epoch_key_commitment(KEY)
    assert commitment == epoch_key_commitment(EpochKey(226, KEY.secret)) != epoch_key_commitment(OTHER)
    assert len(bytes.fromhex(commitment)) == 32
    assert KEY.secret.hex() not in commitment


def test_what_a_content_is_known_by_depends_on_nonce_label_and_content() -> None:
    known = content_hash(b"nonce", "activity", "abc")
    assert len(bytes.fromhex(known)) == 32 and known == content_hash(b"nonce", "activity", "abc")
    others = [(b"other", "activity", "abc"), (b"nonce", "late", "abc"), (b"nonce", "activity", "abd")]
    assert known not in [content_hash(*other) for other in others]


def test_a_data_version_depends_on_its_label_and_on_every_part() -> None:
    version = data_version("activity", ["a", "b"])
    assert len(bytes.fromhex(version)) == 16 and version == data_version("activity", ["a", "b"])
    others = [("sketch", ["a", "b"]), ("activity", ["a"]), ("activity", ["b", "a"]), ("activity", ["ab"])]
    assert version not in [data_version(*other) for other in others]


def test_no_users_key_can_be_read_from_what_is_shown() -> None:
    """A user id is UTF-8 text, and what the others hash never is, even under a nonce that is an epoch's key."""
    shown = [epoch_key_commitment(KEY), content_hash(KEY.secret, "activity", "abc")]
    texts = ["dpdau epoch key commitment", "dpdau content version", "\ufffddpdau epoch key commitment"]
    assert not any(f"{user_key(KEY.secret, text):016x}" in version for text in texts for version in shown)


def test_an_epoch_key_does_not_print_its_secret() -> None:
    assert KEY.secret.hex() not in repr(KEY) and repr(KEY.secret) not in repr(KEY)
