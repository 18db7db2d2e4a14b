"""Telling people of what was done or found, which never fails what was done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dpdau_assets.core.errors import DpdauError


@contextmanager
def telling(say: Callable[[str], object]) -> Iterator[None]:
    """A block in which people are told something. `say` is given a sentence if it fails, and the error goes no further.

    Only errors of our own are quoted: the words of any other may hold an address.
    """
    try:
        yield
    except DpdauError as error:
        say(f"{error.reason} {error.remedy}")
    except Exception as error:
        say(f"People could not be told ({type(error).__name__}).")
