"""Where Dagster may try a step again by itself: where it writes what follows from state, never where noise is drawn.

A number that was not made comes with the next tick of the schedule, which looks at what there is before it asks.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from dpdau_assets.core.errors import DpdauError

SAFE = dg.RetryPolicy(max_retries=2, delay=2, backoff=dg.Backoff.EXPONENTIAL)
"""For steps that write the same again: after a full disk, a lock, a connection that broke."""


@contextmanager
def refusals_fail_at_once() -> Iterator[None]:
    """What dpdau refuses it would refuse again. The error stays, as the failure's cause."""
    try:
        yield
    except DpdauError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def cause_of(failure: dg.Failure) -> Exception:
    """The refusal behind a failure; of any other the failure itself."""
    return failure.__cause__ if isinstance(failure.__cause__, DpdauError) else failure
