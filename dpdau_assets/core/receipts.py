"""Receipts: signed, chained statements of what is left of an erased person, read back from all that is kept.

The signed body names the partitions by digest, so that thousands of receipts written together share one list. What a
receipt says has the same shape whether or not the person was ever there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from dpdau_assets.core.activity import take_in
from dpdau_assets.core.day_sketch import refresh, refresh_all
from dpdau_assets.core.erasure import days_to_rebuild, deadline, epochs_reached, named
from dpdau_assets.core.errors import BadInput, ParameterNotSet
from dpdau_assets.core.facts import Erasure, ReceiptRow
from dpdau_assets.core.inspection import Inspection, Survivor, inspect
from dpdau_assets.core.ports import Outside
from dpdau_assets.core.windows import days_of_epoch

Document = dict[str, Any]


@dataclass(frozen=True)
class Settled:
    """How many requests this call has verified, and the receipts of those that something is left of."""

    verified: int
    unverified: tuple[str, ...]


def settle(outside: Outside) -> Settled:
    """Apply all that was received, bring every sketch up to its state, read everything back, write receipts."""
    with outside.activity.lock():
        take_in(outside)
        with suppress(ParameterNotSet):
            refresh([day for day, _ in days_to_rebuild(outside)], outside)
        refresh_all(outside)
        waiting = outside.erasures.erasures(("applied",))
        rows = write_receipts(waiting, outside)
    verdicts = {row.receipt: json.loads(row.body)["verified"] for row in rows}
    return Settled(sum(verdicts.values()), tuple(receipt for receipt, clean in verdicts.items() if not clean))


def receipt(name: str, outside: Outside) -> Document:
    """The receipt of a request, read back now; a new one is chained when anything has changed since the last.

    Of one that is not applied yet, the same shape, unsigned. Raises BadInput for an unknown name.
    """
    (erasure, *others) = named([name], outside)
    if others or erasure.receipt != name:
        raise BadInput(f"{name} is a batch of requests.", "Ask for one of them: `dpdau erasures` lists them.")
    if erasure.state not in ("applied", "verified"):
        return _document(_body(erasure, [], [], "", "", outside), None, [])
    with outside.activity.lock():
        refresh_all(outside, missing_only=True)  # or which are there would tell for which days somebody new came
        (row,) = write_receipts([erasure], outside)
    return document_of(row)


def write_receipts(erasures: Sequence[Erasure], outside: Outside) -> list[ReceiptRow]:
    """Inspect, and append one receipt a request, unless its last one says just the same. The caller holds the lock.

    A person is looked for under the epochs that live; a request of which none does is one whose days are all purged.
    """
    if not erasures:
        return []
    found = _with_unsearchable(inspect(erasures, outside), erasures, outside)
    digest = hashlib.sha256(found.partitions.encode()).hexdigest()
    follows = previous = outside.receipts.last_hash()
    signing_key = outside.salts.signing_key()
    rows, new = [], []
    for erasure in erasures:
        left = found.survivors[erasure.receipt]
        row = _unchanged(erasure, left, digest, outside)
        if row is None:
            row = _signed(
                _body(erasure, left, found.epochs[erasure.receipt], digest, previous, outside), found, signing_key
            )
            previous = row.hash
            new.append(row)
        rows.append(row)
    clean = [erasure.receipt for erasure in erasures if not found.survivors[erasure.receipt]]
    outside.receipts.append(new, follows, clean)
    return rows


def _with_unsearchable(found: Inspection, erasures: Sequence[Erasure], outside: Outside) -> Inspection:
    """What an earlier receipt named, and can no longer be searched, is left until it is gone.

    A key that was shredded cannot be looked for any more; that must not turn what it was found in into nothing.
    """
    partly = [one for one in erasures
              if len(found.epochs[one.receipt]) < len(epochs_reached(one.through, outside.settings))]  # fmt: skip
    if not partly:
        return found
    names = {file.name for file in outside.premises.files()}
    before = {one.receipt: [left for left in _named_before(one, outside) if left.file in names] for one in partly}
    left = {receipt: sorted({*found.survivors[receipt], *carried}) for receipt, carried in before.items()}
    return replace(found, survivors={**found.survivors, **left})


def _named_before(erasure: Erasure, outside: Outside) -> list[Survivor]:
    row = outside.receipts.last(erasure.receipt)
    return [Survivor(**left) for left in json.loads(row.body)["survivors"]] if row else []


def document_of(row: ReceiptRow) -> Document:
    """The receipt as it is handed out: the signed body, and for each partition what was asked and found."""
    body = json.loads(row.body)
    return _document(body, row, json.loads(row.partitions))


def is_genuine(document: Document, signing_key: bytes) -> bool:
    """Whether this is a receipt that this store signed, unchanged to the last partition.

    Also of one that was handed out without its partitions, and of any other JSON object, which is none.
    """
    body = {name: value for name, value in document.items() if name not in ("partitions", "hash", "signature")}
    hash_now = _hash(_text(body))
    signature = hmac.digest(signing_key, hash_now.encode(), "sha256").hex()
    same_signature = hmac.compare_digest(signature.encode(), str(document.get("signature")).encode())
    if not same_signature or hash_now != document.get("hash"):
        return False
    return "partitions" not in document or _are_of(document["partitions"], body)


def _are_of(partitions: object, body: Document) -> bool:
    """Whether these are the partitions that a signed body speaks of, with what it says of them."""
    rows = partitions if isinstance(partitions, list) else []
    bare = [{name: row.get(name) for name in _BARE} for row in rows if isinstance(row, Mapping)]
    same_partitions = hashlib.sha256(json.dumps(bare).encode()).hexdigest() == body["partitions_digest"]
    return same_partitions and _document(body, None, bare)["partitions"] == partitions


_BARE = ("store", "day", "epoch", "version", "content_hash")


def _body(
    erasure: Erasure, left: Sequence[Survivor], epochs: Sequence[int], digest: str, previous: str, outside: Outside
) -> Document:
    """The signed part. Without a digest of partitions, that of a request that nothing was inspected for yet."""
    inspected = bool(digest)
    return {
        "receipt": erasure.receipt,
        "state": erasure.state if not inspected else "applied" if left else "verified",
        "verified": inspected and not left,
        "received_on": erasure.received_on.isoformat(),
        "deadline": deadline(erasure).isoformat(),
        "inspected_on": outside.clock.today().isoformat() if inspected else None,
        "epochs": list(epochs),
        "scope": {"through": erasure.through.isoformat(), "days": [day.isoformat() for day in erasure.days]},
        "survivors": [asdict(survivor) for survivor in left],
        "remains": _remains(erasure, outside),
        "partitions_digest": digest,
        "previous": previous,
    }


def _remains(erasure: Erasure, outside: Outside) -> list[dict[str, str | None]]:
    """What an erasure leaves on purpose, why, and until when."""
    settings = outside.settings
    last_epoch = epochs_reached(erasure.through, settings)[-1]
    _, epoch_end = days_of_epoch(last_epoch, settings.hash_salt_rotation_days, settings.mau_window_days)
    until = None if settings.retention_days is None else f"{_day(epoch_end)} is past retention"
    return [
        {"what": "published noisy numbers", "until": None,
         "why": "A published number is never changed, so that no change tells whose it is; noise protects all in it."},
        {"what": "tombstone", "until": until,
         "why": "The key, encrypted in the ledger, keeps late and replayed events of the removed days out."},
        {"what": "the request", "until": None,
         "why": "Its receipt, dates and named days show that it was done; no id of the person is with it."},
        {"what": "Dagster's log", "until": None,
         "why": "Dagster keeps for ever which days were rebuilt and when, and nothing of who was active on them."},
        {"what": "backups made before the erasure", "until": _day(deadline(erasure)),
         "why": "Backups are kept outside this system and expire within the deadline."},
    ]  # fmt: skip


def _document(body: Document, row: ReceiptRow | None, partitions: list[Document]) -> Document:
    left = {(survivor["file"], survivor["how"]) for survivor in body["survivors"]}
    erasure_days = _Scope(body["scope"])
    shown = [{**partition, **_verdict(partition, erasure_days, left)} for partition in partitions]
    signed = {"hash": row.hash if row else None, "signature": row.signature if row else None}
    return {**body, "partitions": shown, **signed}


class _Scope:
    def __init__(self, scope: Mapping[str, Any]) -> None:
        self._scope = scope

    def removes(self, day: str) -> bool:
        return day in self._scope["days"] if self._scope["days"] else day <= self._scope["through"]


def _verdict(partition: Document, scope: _Scope, left: set[tuple[str, str]]) -> dict[str, str]:
    """What each of the two tests said of this partition, where the request removes its day."""
    if not scope.removes(partition["day"]):
        return {"membership": "not asked", "bytes": "not asked"}
    name = f"{partition['store']}/day={partition['day']}/epoch={partition['epoch']}"
    return {
        "membership": "present" if any(file == name for file, _ in left) else "absent",
        "bytes": "present" if any(file in (f"{name}.parquet", f"{name}.sketch") for file, _ in left) else "absent",
    }


def _signed(body: Document, found: Inspection, signing_key: bytes) -> ReceiptRow:
    text = _text(body)
    digest = _hash(text)
    signature = hmac.digest(signing_key, digest.encode(), "sha256").hex()
    return ReceiptRow(body["receipt"], text, digest, signature, found.partitions)


def _unchanged(erasure: Erasure, left: Sequence[Survivor], digest: str, outside: Outside) -> ReceiptRow | None:
    """The request's last receipt, if it was inspected before and nothing has changed."""
    if erasure.state == "applied" and not left:
        return None  # about to be verified for the first time
    row = outside.receipts.last(erasure.receipt)
    if row is None:
        return None
    body = json.loads(row.body)
    same = body["partitions_digest"] == digest and body["survivors"] == [asdict(survivor) for survivor in left]
    return row if same else None


def _text(body: Document) -> str:
    return json.dumps(body, sort_keys=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _day(day: date) -> str:
    return day.isoformat()
