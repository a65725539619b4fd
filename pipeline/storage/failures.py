"""Failures of storage: the one error that it raises, which of them may pass, and how they are told."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pipeline.errors import JobError

DELAYS_S = (1.0, 3.0, 9.0)  # beyond what the clients of S3 and HTTP wait themselves
_LOG = logging.getLogger(__name__)
_PASSING = {
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
}
_PASSING_STATUS = (408, 425, 429)  # and all from 500 on
_GONE_STATUS = (404, 410)
# Of botocore, aiohttp and httpx, by name: none is loaded for local files.
_PASSING_CLASSES = {
    *("HTTPClientError", "ConnectionError", "IncompleteReadError", "ResponseParserError"),
    *("ClientConnectionError", "ClientPayloadError", "TransportError"),
}
_HUB = "hf://"
Read = TypeVar("Read")


class StorageError(OSError):
    """Storage refused or failed; the message says why in a person's words, without credentials.

    Attributes:
        missing: there is nothing at that place.
        refused: what is there is never read: a device, a file on a host that is not allowed.
    """

    def __init__(self, message: str, *, missing: bool = False, refused: bool = False) -> None:
        super().__init__(message)
        self.missing, self.refused = missing, refused

    @property
    def not_delivered(self) -> bool:
        """Whether the fault is the storage's (a failure that lasted, no access), not the place's."""
        return not (self.missing or self.refused)


@contextmanager
def place_errors(flag: str, place: str) -> Iterator[None]:
    """Turns what storage says about a place (no such bucket, no right to write) into a JobError.

    Args:
        flag: that names the place.
        place: as the user gave it; named where nothing is there, instead of a file of ours inside it.
    """
    try:
        yield
    except StorageError as problem:
        said = f"{place} does not exist" if problem.missing else str(problem)
        raise JobError(f"{flag} {said}.") from problem


def retried(read: Callable[[], Read], explain: Callable[[Exception], str]) -> Read:
    """What `read` gives, asked again a few times while it fails for reasons that may pass.

    Args:
        explain: a failure in a person's words, for the log.
    """
    for delay in DELAYS_S:
        try:
            return read()
        except Exception as problem:
            if not may_pass(problem):
                raise
            _LOG.warning("%s; trying again in %g s", explain(problem), delay)
            time.sleep(delay)
    return read()


def may_pass(problem: Exception) -> bool:
    """Whether the same request may be answered later: lost connections, timeouts, throttling, 5xx."""
    causes = list(_causes(problem))
    if any(isinstance(each, StorageError) or is_offline(each) for each in causes):
        return False
    for each in causes:
        if (status := _status(each)) is not None:
            return status in _PASSING_STATUS or status >= 500
        if isinstance(each, TimeoutError | ConnectionError):
            return True
        if isinstance(each, OSError) and each.errno in _PASSING:
            return True
        if not _PASSING_CLASSES.isdisjoint(kind.__name__ for kind in type(each).__mro__):
            return True
    return False


def in_words(where: str, problem: Exception, text: str) -> str:
    """What happened at a place, for a person.

    Args:
        text: what the exception says, without secrets.
    """
    name = type(problem).__name__
    if is_missing(problem):
        return f"{where} does not exist"
    if where.startswith(_HUB) and (is_offline(problem) or may_pass(problem)):
        why = "HF_HUB_OFFLINE is set" if is_offline(problem) else text
        return (
            f"{where}: the Hub cannot be reached ({why}). Where it can, download the data set (hf download "
            "--repo-type dataset OWNER/NAME --local-dir FOLDER), and give the folder"
        )
    if isinstance(problem, PermissionError) or re.search(r"\b(403|Forbidden|AccessDenied)\b", text):
        return f"access to {where} is forbidden with the credentials in use ({text})"
    if "NoCredentials" in name:
        return f"no credentials for {where}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError"):
        return f"the endpoint of {where} cannot be reached ({text})"
    return f"{where}: {name}: {text}"


def is_offline(problem: BaseException) -> bool:
    """Whether huggingface_hub was told to ask nobody (HF_HUB_OFFLINE)."""
    return type(problem).__name__ == "OfflineModeIsEnabled"


def is_missing(problem: Exception) -> bool:
    """Whether nothing is there. fsspec calls every failure of a web server that; its causes know better."""
    if not isinstance(problem, FileNotFoundError):
        return "NoSuchBucket" in str(problem)
    statuses = [status for each in _causes(problem) if (status := _status(each)) is not None]
    return statuses[0] in _GONE_STATUS if statuses else problem.__cause__ is None


def first_cause(problem: Exception) -> Exception:
    """The exception to report: our own if there is one, else the cause that a FileNotFoundError hides."""
    causes = [each for each in _causes(problem) if isinstance(each, Exception)]
    own = next((each for each in causes if isinstance(each, StorageError)), None)
    hides = isinstance(problem, FileNotFoundError) and not is_missing(problem)
    return own or (causes[1] if hides and len(causes) > 1 else problem)


def s3_code(problem: Exception) -> str | None:
    """S3's own code of an error that s3fs has translated."""
    response = getattr(problem.__cause__ or problem, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _causes(problem: BaseException | None) -> Iterator[BaseException]:
    while problem is not None:
        yield problem
        problem = problem.__cause__


def _status(problem: BaseException) -> int | None:
    """The HTTP status of an answer: aiohttp's, httpx's or botocore's."""
    response = getattr(problem, "response", None)
    found = getattr(problem, "status", getattr(response, "status_code", None))
    if isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None
