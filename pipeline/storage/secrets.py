"""Credentials in URIs and texts: found, refused, and taken out of what people, tables and logs see."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self
from urllib.parse import quote, quote_plus, unquote

from pydantic import BaseModel, ConfigDict, model_validator

HIDDEN = "***"
_SCHEME = re.compile(r"[^\s'\"/?#]+://")
_IN_TEXT = re.compile(r"(?:[\w+.-]+::)*[\w+.-]+://[^\s'\"<>]+")
_HTTP = re.compile(r"(?:.*::)?https?://", re.IGNORECASE)
# Parameters of signed URLs: S3 and its like, Google, Azure (SAS), CloudFront, and what other services use.
_SIGNED = re.compile(
    r"[?&;](x-\w+-\w+|[\w-]*(signature|token|secret|credential|password|api-?key|key-id)[\w-]*"
    r"|sig|policy|auth|authorization)=",
    re.IGNORECASE,
)


class _Parted(NamedTuple):
    """A URI in four, of which `userinfo` and `query` are secret; joined they are the URI."""

    scheme: str
    userinfo: str
    place: str
    query: str


def _parted(uri: str) -> _Parted:
    """A secret may hold any character, and then nothing tells surely where it ends: rather hide too much.

    `user:secret@` ends at the last @. Of what http asks for, all that follows the path is secret; other
    storage has names with a question mark.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return _Parted("", "", uri, "")
    scheme, rest = match[0], uri[match.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    userinfo = ""
    # A bucket has no colon in its name, but for that of an access point.
    pair = ":" in authority and not authority.startswith("arn:")
    if "@" in authority or (pair and "@" in rest):
        userinfo, at, rest = rest.rpartition("@")
        userinfo += at
    elif pair and scheme.startswith(("s3:", "s3a:")):
        userinfo, rest = rest, ""
    http = _HTTP.fullmatch(scheme) is not None
    query = re.search(r"[?#]." if http else r"\?.", rest)
    end = query.start() if query and (http or _SIGNED.search(rest)) else len(rest)
    return _Parted(scheme, userinfo, rest[:end], rest[end:])


def without_credentials(uri: str) -> str:
    """`uri` without user and password, and without the query that signs it."""
    scheme, userinfo, place, query = _parted(uri)
    hidden = HIDDEN + "@" * userinfo.endswith("@") if userinfo else ""
    return f"{scheme}{hidden}{place}{query[:1] + HIDDEN if query else ''}"


def can_be_opened(uri: str) -> bool:
    """Of storage only http takes a user and a password in the URI, and there they end at the first slash."""
    scheme, userinfo, _, _ = _parted(uri)
    return not userinfo or (_HTTP.fullmatch(scheme) is not None and re.search(r"[/?#]", userinfo) is None)


def redact(text: str, secrets: Iterable[str] = (), uri: str = "") -> str:
    """`text` without `secrets`, however they are quoted, without those of `uri`, and of any URI inside."""
    _, userinfo, _, query = _parted(uri)
    userinfo = userinfo.removesuffix("@")
    values = [userinfo.partition(":")[2], *(pair.partition("=")[2] for pair in query[1:].split("&"))]
    parts = [userinfo, query[1:], *(value for value in values if len(value) > 3)]
    known = {form for secret in (*secrets, *parts, *map(unquote, parts)) for form in _forms(secret)}
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _IN_TEXT.sub(lambda found: without_credentials(found[0]), text)


def _forms(secret: str) -> Iterator[str]:
    if secret:
        yield from (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), repr(secret)[1:-1])


class PublicOptions(BaseModel):
    """Options that tables, summaries and messages show.

    A text that carries a credential is refused, and so is a number that is none, which JSON could not hold.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    @model_validator(mode="after")
    def _can_be_shown(self) -> Self:
        for name, value in _values(self):
            if isinstance(value, str) and without_credentials(value) != value:
                raise ValueError(f"{name}: {refusal(value)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name}: must be a finite number")
        return self


def refusal(uri: str) -> str:
    """Why such a URI is not taken."""
    return (
        f"{without_credentials(uri)} carries credentials in the URI, or a query that may be one, and tables "
        "and logs would repeat it; give them through the environment (AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY) instead"
    )


def _values(model: BaseModel) -> Iterator[tuple[str, Any]]:
    """What its fields hold, those of nested options too, by the field's name."""
    for name in type(model).model_fields:
        value: Any = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _values(value)
        else:
            yield from ((name, item) for item in (value if isinstance(value, list) else [value]))
