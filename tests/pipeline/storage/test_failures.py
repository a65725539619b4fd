"""Failures that may pass, and those that last: what is asked again, and what a caller is told."""

from __future__ import annotations

import errno
import io
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError
from fsspec.implementations.local import LocalFileSystem
from s3fs.errors import translate_boto_error

from pipeline.storage import Storage, StorageError, StorageFile, StorageOptions
from pipeline.storage.failures import is_missing, may_pass

STORAGE = Storage(StorageOptions())


def s3_answer(code: str, status: int) -> Exception:
    """As s3fs raises it."""
    response: Any = {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = translate_boto_error(ClientError(response, "GetObject"))
    return error


@pytest.mark.parametrize(
    "problem",
    [
        TimeoutError(),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        ConnectTimeoutError(endpoint_url="http://s3"),
        EndpointConnectionError(endpoint_url="http://s3"),
        s3_answer("SlowDown", 503),
        s3_answer("InternalError", 500),
        s3_answer("BadGateway", 502),
        s3_answer("TooManyRequests", 429),
        s3_answer("RequestTimeout", 400),
    ],
)
def test_what_may_pass(problem: Exception) -> None:
    if "RequestTimeout" in str(problem):
        assert isinstance(problem, TimeoutError)
    assert may_pass(problem)
    assert not is_missing(problem)


@pytest.mark.parametrize(
    ("problem", "missing"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), True),
        (s3_answer("NoSuchKey", 404), True),
        (s3_answer("NoSuchBucket", 404), True),
        (s3_answer("AccessDenied", 403), False),
        (PermissionError(errno.EACCES, "no"), False),
        (IsADirectoryError(errno.EISDIR, "no"), False),
        (ValueError("embedded null byte"), False),
        (StorageError("said"), False),
    ],
)
def test_what_lasts(problem: Exception, missing: bool) -> None:
    assert not may_pass(problem)
    assert is_missing(problem) == missing


class _Hiccups:
    """Something that fails the first times it is asked."""

    def __init__(self, times: int) -> None:
        self.left, self.asked = times, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.left:
            self.left -= 1
            raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("times", [1, 3, 4])
def test_every_read_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    (tmp_path / "x").write_bytes(b"here")
    place, folder = str(tmp_path / "x"), str(tmp_path)
    stat, scandir = os.stat, os.scandir
    hiccups = _Hiccups(0)

    def sick_stat(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if path in (place, folder):
            hiccups()
        return stat(path, *args, **kwargs)

    def sick_scandir(path: Any) -> Any:
        hiccups()
        return scandir(path)

    monkeypatch.setattr(os, "stat", sick_stat)
    monkeypatch.setattr(os, "scandir", sick_scandir)
    reads = [
        lambda: STORAGE.read_bytes(place),
        lambda: STORAGE.open(place).read(),
        lambda: STORAGE.info(place),
    ]
    reads += [lambda: STORAGE.exists(place), lambda: STORAGE.find(folder), lambda: STORAGE.list_files(folder)]
    for read in reads:
        hiccups.left, hiccups.asked = times, 0
        if times < 4:
            assert read()
            assert hiccups.asked > times
        else:
            with pytest.raises(StorageError, match="Input/output error") as caught:
                read()
            assert (hiccups.asked, caught.value.not_delivered, caught.value.missing) == (4, True, False)


def test_a_read_goes_on_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    class Flaky(io.BytesIO):
        failures = iter([False, True, True, False])

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            if next(self.failures, False):
                raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            return data

    with (
        caplog.at_level(logging.WARNING),
        StorageFile(Flaky(b"abcdef"), lambda p: StorageError(str(p))) as file,
    ):
        assert [file.read(2), file.read(2), file.read(2), file.read(2)] == [b"ab", b"cd", b"ef", b""]
    assert caplog.text.count("Connection reset by peer; trying again in 0 s") == 2


def test_what_lasts_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(self: Any, path: str, *args: Any, **kwargs: Any) -> None:
        asked.append(path)
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    with pytest.raises(StorageError, match="access to /x is forbidden") as caught:
        STORAGE.open("/x")
    assert (asked, caught.value.not_delivered) == (["/x"], True)
    assert not StorageError("gone", missing=True).not_delivered


@pytest.fixture
def throttled(bucket: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """A bucket whose objects answer "Slow Down" twice, after botocore has given up; and what was asked."""
    storage = Storage(StorageOptions().with_environment())
    storage.write_bytes(f"{bucket}/throttled/x", b"here")
    asked: list[str] = []

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(method)
        if len(asked) <= 2:
            raise s3_answer("SlowDown", 503)
        return await real(self, method, *args, **kwargs)

    from s3fs import S3FileSystem

    real = S3FileSystem._call_s3
    monkeypatch.setattr(S3FileSystem, "_call_s3", call)
    return f"{bucket}/throttled", asked


@pytest.mark.slow
def test_throttling_passes(throttled: tuple[str, list[str]]) -> None:
    home, asked = throttled
    storage = Storage(StorageOptions().with_environment())
    assert storage.read_bytes(f"{home}/x") == b"here"
    assert len(asked) >= 3
    asked.clear()
    assert [info.uri for info in storage.find(home)] == [f"{home}/x"]
    asked.clear()
    with storage.open(f"{home}/x") as file:
        asked.clear()
        assert file.read() == b"here"
