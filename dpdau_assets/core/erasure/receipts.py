"""Receipts: signed, chained statements of what is left of an erased person, read back from all that is kept.

The signed body names the partitions by digest, so that thousands of receipts written together share one list. What a
receipt says has the same shape whether or not the person was ever there.

Owns the rule: A receipt says verified only after everything was read back.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from dpdau_assets.core.erasure.inspection import Inspection, Survivor, inspect
from dpdau_assets.core.erasure.quarantine import expire
from dpdau_assets.core.erasure.remains import remains
from dpdau_assets.core.erasure.requests import deadline, epochs_reached, named
from dpdau_assets.core.errors import BadInput, Damaged, ParameterNotSet
from dpdau_assets.core.facts import Erasure, Inspected, ReceiptRow, Reference
from dpdau_assets.core.identity import REFERENCE, commitment
from dpdau_assets.core.ports.store import Erasures, State, Store
from dpdau_assets.core.state.activity import apply_pending, repair_all
from dpdau_assets.core.state.day_sketch import of_another_state, refresh, refresh_all
from dpdau_assets.core.state.touched import days_to_rebuild, mark_all

Document = dict[str, Any]


@dataclass(frozen=True)
class VerificationOutcome:
    """What was verified, and what was found on the way.

    Attributes:
        verified: how many requests this call has verified.
        unverified: the receipts of those that something is left of.
        repaired: partitions in whose place an older file had been put.
        broken: partitions of which the newest file is gone, and cannot be made from the one that is there.
    """

    verified: int
    unverified: tuple[str, ...]
    repaired: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


def apply_and_verify(store: Store) -> VerificationOutcome:
    """Apply all that was received, bring every sketch up to its state, read everything back, write receipts."""
    with store.state.activity.lock():
        expire(store)
        repaired, broken = apply(store)
        again = store.erasures.ledger.find(store.erasures.receipts.disputed())  # what they name may be gone by now
        waiting = list(dict.fromkeys([*store.erasures.ledger.erasures(("applied",)), *again]))
        rows = write_receipts(waiting, store)
        verdicts = {row.receipt: json.loads(row.body)["verified"] for row in rows}
        if any(verdicts.values()):
            _leave_no_marks(store)
    unverified = tuple(receipt for receipt, clean in verdicts.items() if not clean)
    return VerificationOutcome(sum(verdicts.values()), unverified, repaired, broken)


def apply(store: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Apply all that was received, and bring every file up to date; which were old, and which cannot be repaired."""
    with store.state.activity.lock():
        apply_pending(store)
        repaired, broken = repair_all(store)
        repaired += of_another_state(store.state)
        lost = {place.day for place in broken}
        with suppress(ParameterNotSet):
            refresh([day for day, _ in days_to_rebuild(store) if day not in lost], store)
        refresh_all(store)
    return tuple(map(str, repaired)), tuple(map(str, broken))


def _leave_no_marks(store: Store) -> None:
    """A day that still waits for Dagster to be told would say that somebody was active on it: then all days wait."""
    if store.state.rebuilds.behind():
        mark_all(store)
    store.state.rebuilds.overwrite_deleted()


def receipt(name: str, store: Store) -> Document:
    """The receipt of a request, read back now; a new one is chained when anything has changed since the last.

    Of one that is not applied yet, the same shape, unsigned. Raises BadInput for an unknown name.
    """
    (erasure, *others) = named([name], store.erasures)
    if others or erasure.receipt != name:
        raise BadInput(f"{name} is a batch of requests.", "Ask for one of them: `dpdau erasures` lists them.")
    (document,) = _documents([erasure], store)
    return document


def last_receipt(erasure: Erasure, store: Store) -> Document:
    """The receipt that was written last for a request, as it was then; unsigned, where none was written yet."""
    row = store.erasures.receipts.last(erasure.receipt)
    reference = store.erasures.ledger.references([erasure.receipt]).get(erasure.receipt)
    return document_of(row, reference) if row else _unsigned(erasure, reference, store)


def receipts_of(reference: str, store: Store) -> Document:
    """The receipts of all requests with this reference, in order of arrival, read back together.

    Raises BadInput for one that no request has, or has any more: it goes with the request's tombstone.
    """
    erasures = store.erasures.ledger.referred_to(reference)
    if not erasures:
        raise BadInput(
            f"No erasure has the reference {reference}.",
            "`dpdau erasures` lists the receipts; a reference is kept while its request has a tombstone.",
        )
    documents = _documents(erasures, store)
    verified = all(document["verified"] for document in documents)
    return {"reference": reference, "verified": verified, "receipts": documents}


def _documents(erasures: Sequence[Erasure], store: Store) -> list[Document]:
    """One each, in order; what is kept is read back once for all."""
    done = [erasure for erasure in erasures if erasure.state in ("applied", "verified")]
    rows: dict[str, ReceiptRow] = {}
    if done:
        with store.state.activity.lock():
            with suppress(Damaged):  # which reading back finds, and names
                store.events.log.seal()
            refresh_all(store, missing_only=True)  # or which are there would tell for which days somebody new came
            rows = {row.receipt: row for row in write_receipts(done, store)}
    references = store.erasures.ledger.references(erasure.receipt for erasure in erasures)
    return [
        document_of(rows[erasure.receipt], references.get(erasure.receipt))
        if erasure.receipt in rows
        else _unsigned(erasure, references.get(erasure.receipt), store)
        for erasure in erasures
    ]


def write_receipts(erasures: Sequence[Erasure], store: Store) -> list[ReceiptRow]:
    """Inspect, and append one receipt a request, unless its last one says just the same. The caller holds the lock.

    A person is looked for under the epochs that live; a request of which none does is one whose days are all purged.
    """
    if not erasures:
        return []
    inspection = _with_unsearchable(inspect(erasures, store), erasures, store)
    inspected = _inspected(inspection, store.state, store.erasures)
    follows = previous = store.erasures.receipts.last_hash()
    signing_key = store.state.salts.signing_key()
    references = store.erasures.ledger.references(erasure.receipt for erasure in erasures)
    rows, new = [], []
    for erasure in erasures:
        left, reference = inspection.survivors[erasure.receipt], references.get(erasure.receipt)
        row = _unchanged(erasure, left, inspected, store.erasures)
        if row is None:
            epochs = inspection.epochs[erasure.receipt]
            body = _body(erasure, left, epochs, reference, inspected.digest, previous, store)
            row = _signed(body, inspected, signing_key)
            previous = row.hash
            new.append(row)
        rows.append(row)
    clean = [erasure.receipt for erasure in erasures if not inspection.survivors[erasure.receipt]]
    store.erasures.receipts.append(new, follows, clean)
    return rows


def _inspected(inspection: Inspection, state: State, erasures: Erasures) -> Inspected:
    """What was read back: the last inspection again if nothing has changed since."""
    last = erasures.receipts.inspection()
    if last is not None and last.partitions == inspection.partitions:
        return last
    return Inspected(state.builds.new_nonce().hex(), inspection.partitions)


def _with_unsearchable(inspection: Inspection, erasures: Sequence[Erasure], store: Store) -> Inspection:
    """What an earlier receipt named, and can no longer be searched, is left until it is gone.

    A key that was shredded cannot be looked for any more; that must not turn what it was found in into nothing.
    """
    partly = [
        erasure
        for erasure in erasures
        if len(inspection.epochs[erasure.receipt]) < len(epochs_reached(erasure.through, store.settings))
    ]
    if not partly:
        return inspection
    names = {file.name for file in store.state.files.files()}
    before = {
        erasure.receipt: [left for left in _named_before(erasure, store.erasures) if left.file in names]
        for erasure in partly
    }
    left = {receipt: sorted({*inspection.survivors[receipt], *carried}) for receipt, carried in before.items()}
    return replace(inspection, survivors={**inspection.survivors, **left})


def _named_before(erasure: Erasure, erasures: Erasures) -> list[Survivor]:
    row = erasures.receipts.last(erasure.receipt)
    return [Survivor(**left) for left in json.loads(row.body)["survivors"]] if row else []


def document_of(row: ReceiptRow, reference: Reference | None = None) -> Document:
    """The receipt as it is handed out: the signed body, for each partition what was asked and found, the reference."""
    return _document(json.loads(row.body), row, row.inspected, reference)


def _unsigned(erasure: Erasure, reference: Reference | None, store: Store) -> Document:
    """The receipt of a request that nothing was inspected for yet."""
    return _document(_body(erasure, [], [], reference, "", "", store), None, None, reference)


def is_genuine(document: Document, signing_key: bytes) -> bool:
    """Whether this is a receipt that this store signed, unchanged to the last partition.

    Also of one that was handed out without its partitions or its reference, and of any other JSON object, which is
    none.
    """
    body = {name: value for name, value in document.items() if name not in _BESIDE_THE_BODY}
    hash_now = _hash(_text(body))
    signature = hmac.digest(signing_key, hash_now.encode(), "sha256").hex()
    same_signature = hmac.compare_digest(signature.encode(), str(document.get("signature")).encode())
    if not same_signature or hash_now != document.get("hash"):
        return False
    if document.get("reference") is not None and not _is_called(document, body):
        return False
    return "partitions" not in document or _are_of(document["partitions"], document.get("partitions_nonce"), body)


def _is_called(document: Document, body: Document) -> bool:
    """Whether the reference is the one that the signed body is bound to."""
    try:
        opening = bytes.fromhex(document["reference_opening"])
    except (KeyError, TypeError, ValueError):
        return False
    committed = commitment(opening, REFERENCE, body["receipt"], document["reference"])
    return hmac.compare_digest(committed.encode(), str(body.get("reference_commitment")).encode())


def _are_of(partitions: object, nonce: object, body: Document) -> bool:
    """Whether these are the partitions that a signed body speaks of, with what it says of them."""
    rows = partitions if isinstance(partitions, list) else []
    bare = [{name: row.get(name) for name in _BARE} for row in rows if isinstance(row, Mapping)]
    inspected = Inspected(str(nonce), json.dumps(bare))
    return inspected.digest == body["partitions_digest"] and _shown(body, bare) == partitions


_BARE = ("store", "day", "epoch", "version", "content_hash")
_BESIDE_THE_BODY = ("partitions", "partitions_nonce", "reference", "reference_opening", "hash", "signature")


def _body(
    erasure: Erasure,
    left: Sequence[Survivor],
    epochs: Sequence[int],
    reference: Reference | None,
    digest: str,
    previous: str,
    store: Store,
) -> Document:
    """The signed part. Without a digest of partitions, that of a request that nothing was inspected for yet."""
    inspected = bool(digest)
    return {
        "receipt": erasure.receipt,
        "state": erasure.state if not inspected else "applied" if left else "verified",
        "verified": inspected and not left,
        "received_on": erasure.received_on.isoformat(),
        "deadline": deadline(erasure).isoformat(),
        "inspected_on": store.clock.today().isoformat() if inspected else None,
        "epochs": list(epochs),
        "scope": {"through": erasure.through.isoformat(), "days": [day.isoformat() for day in erasure.days]},
        "survivors": [asdict(survivor) for survivor in left],
        "remains": remains(
            erasure,
            store.settings,
            store.accountant,
            has_tombstone=bool(epochs) or not inspected,
            has_reference=reference is not None,
        ),
        "reference_commitment": reference.commitment if reference else None,
        "partitions_digest": digest,
        "previous": previous,
    }


def _document(
    body: Document, row: ReceiptRow | None, inspected: Inspected | None, reference: Reference | None = None
) -> Document:
    read = (
        {}
        if row and not inspected
        else {  # superseded, and not kept any more
            "partitions": _shown(body, json.loads(inspected.partitions) if inspected else []),
            "partitions_nonce": inspected.nonce if inspected else None,
        }
    )
    return {
        **body,
        **read,
        "reference": reference.text if reference else None,
        "reference_opening": reference.opening if reference else None,
        "hash": row.hash if row else None,
        "signature": row.signature if row else None,
    }


def _shown(body: Document, partitions: Sequence[Document]) -> list[Document]:
    left = {(survivor["file"], survivor["how"]) for survivor in body["survivors"]}
    scope = _Scope(body["scope"])
    return [{**partition, **_verdict(partition, scope, left)} for partition in partitions]


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


def _signed(body: Document, inspected: Inspected, signing_key: bytes) -> ReceiptRow:
    text = _text(body)
    digest = _hash(text)
    signature = hmac.digest(signing_key, digest.encode(), "sha256").hex()
    return ReceiptRow(body["receipt"], text, digest, signature, inspected.digest, inspected)


def _unchanged(
    erasure: Erasure, left: Sequence[Survivor], inspected: Inspected, erasures: Erasures
) -> ReceiptRow | None:
    """The request's last receipt, if it was inspected before and nothing has changed."""
    if erasure.state == "applied" and not left:
        return None  # about to be verified for the first time
    row = erasures.receipts.last(erasure.receipt)
    if row is None:
        return None
    same = row.inspection == inspected.digest
    same &= json.loads(row.body)["survivors"] == [asdict(survivor) for survivor in left]
    return replace(row, inspected=inspected) if same else None


def _text(body: Document) -> str:
    return json.dumps(body, sort_keys=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
