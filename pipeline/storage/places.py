"""Where a file is, as text: local paths and URIs, and what two spellings of one place have in common.

A local path that is not UTF-8 is written as `Path.as_uri()` writes it (`file:///mod%E0.wav`): Parquet holds
nothing else, and no other path is written like that.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urljoin

from pipeline.storage.failures import StorageError

HTTP = frozenset({"http", "https"})
S3 = frozenset({"s3", "s3a", "s3n"})
HUB, HUB_HOST = "hf", "huggingface.co"
# With the colons of fsspec's chains ("simplecache::s3://…"), which are no protocol that is known here.
_SCHEME = re.compile(r"([a-z][a-z0-9+.:-]*)://", re.IGNORECASE)
_FILE = re.compile(r"file:(?://([^/]*)(?=/|$)|(?=/))", re.IGNORECASE)  # Java writes file:/x


def scheme_of(uri: str) -> str | None:
    """The protocol of a URI in lower case; None for a local path."""
    if uri.startswith("/"):
        return None
    if _FILE.match(uri):
        return "file"
    scheme = _SCHEME.match(uri)
    return scheme[1].lower() if scheme else None


def is_remote(uri: str) -> bool:
    """Whether it is a URI, not a plain local path."""
    return scheme_of(uri) is not None


def hosts_of(places: Iterable[str]) -> frozenset[str]:
    """The servers that a user allows by naming these places: the Hub alone."""
    return frozenset({HUB_HOST for place in places if scheme_of(place) == HUB})


def path_of(uri: str) -> str:
    """The path a filesystem wants: without the protocol, but for http(s), whose filesystem wants it.

    Raises:
        StorageError: a file:// URI of another host.
    """
    scheme = scheme_of(uri)
    if scheme is None or scheme in HTTP:
        return uri
    if scheme != "file":
        return uri.split("://", 1)[1]
    authority = _FILE.match(uri)
    assert authority is not None
    if (authority[1] or "localhost").lower() != "localhost":
        raise StorageError(
            f"{uri} is a file of the host {authority[1]!r}, not of this one (file:///… is)", refused=True
        )
    return os.fsdecode(unquote_to_bytes(uri[authority.end() :])) or "/"


def uri_of(like: str, path: str) -> str:
    """`path` of the filesystem that `like` lives in, as a URI again."""
    scheme = scheme_of(like)
    if scheme is None or scheme == "file":
        return in_utf8(path)
    return path if is_remote(path) else f"{scheme}://{path}"


def in_utf8(path: str) -> str:
    """An absolute local path; as a file:// URI where it is not UTF-8.

    Raises:
        UnicodeEncodeError: it has characters that no file system can hold.
    """
    return path if _is_utf8(path) else f"file://{quote(os.fsencode(path))}"


def as_utf8(given: Any) -> Any:
    """A place as a user gives it, in the spelling of `in_utf8` where it is not UTF-8; what else is given.

    Raises:
        ValueError: object stores have no such names.
    """
    if not isinstance(given, str) or _is_utf8(given):
        return given
    if scheme_of(given) is not None:
        raise ValueError(f"{given!a} is not UTF-8")
    return in_utf8(absolute(os.path.expanduser(given)))


def as_places(given: list[str]) -> list[str]:
    """`as_utf8` of several, none of them empty."""
    if "" in given:
        raise ValueError("an empty path names no place")
    return [as_utf8(place) for place in given]


def name_in_utf8(name: str) -> str:
    """A part of a path; percent-encoded, as in `in_utf8`, where it is not UTF-8."""
    return name if _is_utf8(name) else quote(os.fsencode(name))


def absolute(path: str) -> str:
    """A local path from the root on, without ".", ".." and "//"; ".." leads where the system says it does."""
    parts = Path(path).absolute().parts[1:]
    if ".." not in parts:
        return "/" + "/".join(parts)
    last = len(parts) - parts[::-1].index("..")
    return posixpath.join(os.path.realpath("/" + "/".join(parts[:last])), *parts[last:])


def one_scheme(uri: str) -> str:
    """A URI that is not local, its protocol spelled in the one way."""
    scheme = scheme_of(uri)
    return f"{'s3' if scheme in S3 else scheme}://{uri.split('://', 1)[1]}"


def collapsed(uri: str) -> str:
    """An s3:// URI without ".", ".." and "//", which object stores take literally."""
    start, path = one_scheme(uri).split("://", 1)
    bucket, _, key = path.partition("/")
    return f"{start}://{bucket}{posixpath.normpath('/' + key.lstrip('/'))}".rstrip("/")


def join(base: str, *parts: str) -> str:
    if scheme_of(base) == "file":
        parts = tuple(map(quote, parts))
    return "/".join([base.rstrip("/"), *parts])


def name_of(uri: str) -> str:
    """The last part of a path or URI."""
    return uri.rsplit("/", 1)[-1]


def glob_root(pattern: str) -> str:
    """The folder below which all that matches a pattern lies; empty for the root."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0].rsplit("/", 1)[0]


def resolve(base: str, path: str) -> str:
    """Where `path`, as written in the file `base`, leads: relative paths start at the file's directory.

    A path that leads nowhere stays as it is: who opens it is told why.
    """
    scheme, home = scheme_of(path), scheme_of(base)
    with suppress(StorageError, ValueError):  # no place of this host, or of any
        if scheme == "file":
            return in_utf8(absolute(path_of(path)))
        if scheme is not None:
            return one_scheme(path)
        if path.startswith("/") or home in (None, "file"):
            return in_utf8(absolute(posixpath.join(posixpath.dirname(path_of(base)), path)))
        if home in HTTP:
            return urljoin(base, quote(path))
        folder = path_of(base).split("/")[:-1]
        for part in path.split("/"):
            if part == "..":
                folder = folder[: max(1, len(folder) - 1)]
            elif part not in ("", "."):
                folder.append(part)
        return uri_of(base, "/".join(folder))
    return path


class Places:
    """Tells whether two spellings are one place: `s3a://` is `s3://`, a local folder is where links lead.

    It asks about each folder once; keep one no longer than a listing takes.
    """

    def __init__(self) -> None:
        self._real = cache(os.path.realpath)

    def of(self, folder: str, name: str = "") -> str:
        """The place of a folder, or of `name` below it, in which links are not followed."""
        if scheme_of(folder) in (None, "file"):
            return posixpath.join(self._real(path_of(folder)), name).rstrip("/")
        return f"{one_scheme(folder).rstrip('/')}/{name}".rstrip("/")

    def of_file(self, uri: str) -> str:
        """The place of a file, in the folder where that really is."""
        with suppress(StorageError, ValueError):  # no place of this host, or of any
            folder, _, name = path_of(uri).rpartition("/")
            return self.of(uri_of(uri, folder or "/"), name)
        return uri


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
