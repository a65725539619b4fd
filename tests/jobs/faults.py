"""A proxy before an S3 server that does what networks and busy stores do: lose, cut, refuse, stall.

What it does to which request follows from a seed and from the order in which requests come.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest


class Fault(StrEnum):
    """What may become of a request."""

    ERROR = "500 before anything was done"
    SLOW_DOWN = "503 before anything was done"
    RESET = "connection reset before anything was done"
    LOST = "connection reset when it was done"
    CUT = "answer with fewer bytes than it announces"
    STALL = "answer late"
    EXPIRED = "403"
    FORGOTTEN = "404 for an upload that is joined already, as of MinIO; Amazon's answers as before"
    INSIDE = "200 with an error inside, as S3 answers where many keys are deleted or parts joined"


_ANYWHERE = (Fault.ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST, Fault.CUT, Fault.STALL)


@dataclass
class Faults:
    """Which requests fail, and how.

    Attributes:
        rate: of the requests, from 0 to 1.
        spares: requests from now on that pass.
        once: a request that failed passes when it comes again.
        expires: credentials are valid for those requests alone.
        kinds: that are drawn from.
        within: the path of what may fail, such as /bucket/corpus; other requests do not count.
        stall_s: how late a late answer is.
        done: how often each fault was injected, and under "requests" all requests.
    """

    rate: float = 0.0
    seed: float = 0
    spares: int = 0
    once: bool = False
    expires: bool = False
    kinds: tuple[Fault, ...] = (*_ANYWHERE, Fault.INSIDE)
    within: str = "/"
    stall_s: float = 0.02
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random, self._lock = random.Random(self.seed), threading.Lock()
        self._failed: set[tuple[str, str]] = set()
        self._joined: set[tuple[str, str]] = set()

    def next(self, method: str, path: str) -> Fault | None:
        """What becomes of the request; None: it passes."""
        with self._lock:
            if not _place(path).startswith(self.within):
                return None
            self.done["requests"] += 1
            possible = [kind for kind in self.kinds if kind in _ANYWHERE or _is_compound(method, path)]
            if (method, path) in self._joined:
                return Fault.FORGOTTEN
            if self.done["requests"] <= self.spares:
                return None
            if self.expires:
                self.done["EXPIRED"] += 1
                return Fault.EXPIRED
            again = self.once and (method, path) in self._failed
            if again or not possible or self._random.random() >= self.rate:
                return None
            self._failed.add((method, path))
            fault = self._random.choice(possible)
            self.done[fault.name] += 1
            return fault

    def joined(self, method: str, path: str) -> None:
        """A request was done; uploads are joined once."""
        if _is_compound(method, path) and "uploadId" in path:
            self._joined.add((method, path))


def _place(path: str) -> str:
    """What a request is about: a listing's place is in its query."""
    asked = urlsplit(path)
    prefix = parse_qs(asked.query).get("prefix", [""])[0]
    return f"{asked.path}/{prefix}" if prefix else asked.path


def _is_compound(method: str, path: str) -> bool:
    query = urlsplit(path).query
    return method == "POST" and ("delete" in query or "uploadId" in query)


@dataclass
class Proxy:
    """The proxy's address, and what it does just now: `faults` may be set at any time."""

    endpoint: str
    faults: Faults = field(default_factory=Faults)


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    """A proxy before a server; it stops with the block."""
    target = urlsplit(endpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    server.proxy, server.target = proxy, (target.hostname, target.port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        try:
            self._serve()
        except ConnectionError:  # a client that waits no longer
            self.close_connection = True

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        faults: Faults = self.server.proxy.faults
        fault = faults.next(self.command, self.path)
        if fault is Fault.EXPIRED:
            self._refuse(403, "ExpiredToken")
        elif fault is Fault.FORGOTTEN:
            self._refuse(404, "NoSuchUpload")
        elif fault is Fault.ERROR:
            self._refuse(500, "InternalError")
        elif fault is Fault.SLOW_DOWN:
            self._refuse(503, "SlowDown")
        elif fault is Fault.INSIDE:
            self._refuse_inside()
        elif fault is Fault.RESET:
            self._reset()
        else:
            status, headers, answer = self._forward(body)
            if status == 200:
                faults.joined(self.command, self.path)
            if fault is Fault.STALL:
                time.sleep(faults.stall_s)
            if fault is Fault.LOST or (fault is Fault.CUT and not answer):
                self._reset()
            else:
                self._answer(status, headers, answer, len(answer) // 2 if fault is Fault.CUT else None)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(*self.server.target)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code} by the proxy</Message></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], body if self.command != "HEAD" else b"")

    def _refuse_inside(self) -> None:
        error = "<Code>InternalError</Code><Message>We encountered an internal error.</Message>"
        body = f"<Error>{error}</Error>"
        if "delete" in urlsplit(self.path).query:
            body = f"<DeleteResult><Error><Key>each</Key>{error}</Error></DeleteResult>"
        self._answer(200, [("Content-Type", "application/xml")], body.encode())

    def _answer(
        self, status: int, headers: Iterable[tuple[str, str]], body: bytes, cut: int | None = None
    ) -> None:
        """Args: cut: bytes of the body that are sent; None: all."""
        kept = [(name, value) for name, value in headers if name.lower() not in _OF_A_CONNECTION]
        length = next((value for name, value in headers if name.lower() == "content-length"), None)
        announced = length if self.command == "HEAD" and length else str(len(body))
        self.send_response_only(status)
        for name, value in [*kept, ("Content-Length", announced)]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def _reset(self) -> None:
        """Ends the connection as a machine that goes down does, not as one that takes its leave."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()  # else the socket stays open until the handler ends
        self.connection.close()


_OF_A_CONNECTION = ("connection", "content-length", "transfer-encoding", "date", "server")


@contextmanager
def clients(*, attempts: int, read_timeout_s: float = 60.0) -> Iterator[None]:
    """S3 clients of this process that try a request so often, and do not wait in between."""
    import s3fs.core
    from aiobotocore.config import AioConfig

    from pipeline.storage.filesystems import StrictS3FileSystem

    def config(**given: Any) -> AioConfig:
        retries = {"total_max_attempts": attempts, "mode": "standard"}
        return AioConfig(**{**given, "retries": retries, "read_timeout": read_timeout_s})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.core, "AioConfig", config)
        patch.setattr(s3fs.S3FileSystem, "retries", min(attempts, s3fs.S3FileSystem.retries))
        patch.setattr("pipeline.storage.failures.DELAYS_S", ())
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
        StrictS3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            StrictS3FileSystem.clear_instance_cache()
