"""Files in a storage that fsspec reads, by the service's own credentials; nothing of them is kept on this machine.

No error says what a storage's own library says, which can quote credentials.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from dpdau_assets.core.errors import BadInput, DpdauError
from resources.reading.local_files import WILD, Entry, Place, is_hidden

_WEB = ("http", "https")
_BUCKETS = ("s3", "s3a", "gs", "gcs")
_PASSWORD = re.compile(r"[^/@:]*:(?!\d+(?:/|$))[^@]*@")
_SECRET = re.compile(r"[?&;][^=&/]*(?:sig|token|key|secret|passw|credential|auth|x-amz|x-goog)[^=&/]*=", re.IGNORECASE)
_OURS = "'.[s3]' in a clone of dpdau"
_PACKAGES = {"s3": _OURS, "s3a": _OURS, "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_BLOCK_BYTES = 1 << 22
_BUFFER_BYTES = 1 << 20


def remote_entries(scheme: str, rest: str) -> list[Entry]:
    """What is at the URL of this scheme, with this after its `://`; see `entries_at`."""
    _require_no_secret(scheme, rest)
    name = _without_query(f"{scheme}://{rest}", scheme)
    with _in_own_words(name):
        storage = _storage(scheme)
        root = storage._strip_protocol(f"{scheme}://{rest}")
        found = _found(storage, root, name)
    return [_remote_entry(storage, info, place, scheme) for info, place in found]


def _found(storage: Any, root: str, name: str) -> list[tuple[dict[str, Any], Place]]:
    try:
        info = storage.info(root)
    except FileNotFoundError:
        if not WILD.search(root):
            raise
    else:
        return [(info, "named")] if info["type"] != "directory" else _below(storage, root)
    matches = storage.glob(root.replace("[", "[[]"), detail=True)
    shown = _shown(matches, root)
    infos = [matches[match] for match in shown if not (name.endswith("/**") and matches[match]["type"] == "directory")]
    found = [entry for info in infos for entry in _at_remote_match(storage, info)]
    if not found:
        raise BadInput(f"{name} matches no file.", "Correct the pattern.", path=name)
    return found


def _at_remote_match(storage: Any, info: dict[str, Any]) -> list[tuple[dict[str, Any], Place]]:
    return _below(storage, info["name"]) if info["type"] == "directory" else [(info, "matched")]


def _below(storage: Any, root: str) -> list[tuple[dict[str, Any], Place]]:
    """Files in and below it; a key that ends with a slash stands for a folder."""
    start = len(root.rstrip("/"))
    return [
        (info, "inside")
        for path, info in sorted(storage.find(root, detail=True).items())
        if info["type"] == "file" and not path.endswith("/") and not is_hidden(path[start:].split("/"))
    ]


def _remote_entry(storage: Any, info: dict[str, Any], place: Place, scheme: str) -> Entry:
    path = info["name"]
    name = _without_query(path if "://" in path else f"{scheme}://{path}", scheme)

    def open_it() -> BinaryIO:
        with _in_own_words(name):
            file = storage.open(path, "rb", block_size=_BLOCK_BYTES)
        return cast(BinaryIO, io.BufferedReader(_Guarded(file, name), _BUFFER_BYTES))

    return Entry(name, place, info.get("size") or 0, None, open_it)


def _storage(scheme: str) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(scheme, skip_instance_cache=True)  # a kept one would remember what lay there
    except ImportError:
        package = _PACKAGES.get(scheme, "the package of fsspec for it")
        raise BadInput(
            f"{scheme}:// needs a package that is not installed.", f"Install it: pip install {package}."
        ) from None
    except ValueError:
        raise BadInput(f"{scheme}:// is no kind of storage that fsspec knows.", "Correct the location.") from None


def _shown(names: Iterable[str], pattern: str) -> list[str]:
    """Names that the pattern does not match by a hidden one, unless it says hidden names itself."""
    parts = pattern.split("/")
    first = next(place for place, part in enumerate(parts) if WILD.search(part))
    if any(part.startswith((".", "_")) for part in parts[first:]):
        return list(names)
    return [name for name in names if not is_hidden(name.rstrip("/").split("/")[first:])]


def _require_no_secret(scheme: str, rest: str) -> None:
    authority = rest.split("/", 1)[0]
    has_user = "@" in authority or (":" in authority and not authority.startswith("arn:"))
    if _PASSWORD.match(rest) or _SECRET.search(rest) or (scheme in _BUCKETS and has_user):
        raise BadInput(
            f"A location that begins with {scheme}:// has a password or a key in it.",
            "Leave it out: the service's own credentials, of its environment or role, are used.",
        )
    if "::" in f"{scheme}://{rest}" or "cache" in scheme:
        raise BadInput(
            f"A location that begins with {scheme}:// would be read by way of another one.",
            "Name where the files themselves lie: no copies of them are made on this machine.",
        )


def _without_query(url: str, scheme: str) -> str:
    return url.split("?")[0] if scheme in _WEB else url


@contextmanager
def _in_own_words(name: str) -> Iterator[None]:
    """Errors of a storage's library become BadInput; each library has its own kinds, with words that can hold keys."""
    try:
        yield
    except DpdauError:
        raise
    except FileNotFoundError:
        raise BadInput(f"{name} does not exist.", "Name a file, or a folder with event files.", path=name) from None
    except PermissionError:
        raise BadInput(
            f"{name} may not be read with the service's credentials.",
            "Allow it to list and to read there, or correct the credentials in its environment.",
            path=name,
        ) from None
    except Exception as error:  # whatever a library raises: what it says stays unsaid
        raise BadInput(
            f"{name} cannot be read: {type(error).__name__}.",
            "See that the service reaches that storage and has credentials for it in its environment.",
            path=name,
        ) from None


class _Guarded(io.RawIOBase):
    """A file in a storage, of which each error is ours."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._is_seekable = getattr(file, "size", None) is not None and file.seekable()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._is_seekable

    def readinto(self, buffer: Any, /) -> int:
        place = memoryview(buffer)
        with _in_own_words(self._name):
            data = self._file.read(len(place))
        place[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with _in_own_words(self._name):
            return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
