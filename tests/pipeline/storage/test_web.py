"""Web servers: asked only where somebody allowed it, also by a redirect; their failures told apart."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.parts import read_parts, split
from pipeline.errors import JobError
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.storage import Storage, StorageError, StorageOptions, filesystems
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

CONTENT = bytes(range(256)) * 100


class _Server(SimpleHTTPRequestHandler):
    """Files of a folder, whole; /to/<url> sends on, /status/<n> fails, /endless never ends."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path.startswith("/status/"):
            self.send_error(int(self.path.rsplit("/", 1)[-1]))
        elif self.path.startswith("/endless"):
            self.send_response(200)
            self.end_headers()
            try:
                while self.command == "GET":
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass
        else:
            super().do_HEAD() if self.command == "HEAD" else super().do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


class _Parts(BaseHTTPRequestHandler):
    """A server that gives parts of one file."""

    data = CONTENT * 400  # 10 MB
    ranges: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.ranges.append(wanted)
        start, end = (
            int(text) for text in (wanted.removeprefix("bytes=") or f"0-{len(self.data) - 1}").split("-")
        )
        data = self.data[start : end + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(self.data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


def serve(handler: Any) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "x.wav").write_bytes(CONTENT)
    (tmp_path / "a b?.wav").write_bytes(b"odd")
    _Server.asked.clear()
    yield from serve(partial(_Server, directory=str(tmp_path)))


def allowing(*hosts: str) -> Storage:
    return Storage(StorageOptions(), frozenset(hosts))


def refusal(storage: Storage, url: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        storage.open(url).read()
    return caught.value


def test_nothing_is_asked_that_nobody_allowed(host: str) -> None:
    for hosts in ((), ("other.example",), ("127.0.0.1:1",), ("localhost",)):
        problem = refusal(allowing(*hosts), f"http://{host}/x.wav")
        assert f"allow it with --allow-hosts {host}" in str(problem)
        assert problem.refused
        with pytest.raises(StorageError, match="--allow-hosts"):
            allowing(*hosts).exists(f"HTTP://{host}/x.wav")
    assert _Server.asked == []


@pytest.mark.parametrize("by", ["127.0.0.1", "{host}"])
def test_an_allowed_server_is_read(host: str, by: str) -> None:
    storage = allowing("other.example", by.format(host=host))
    with storage.open(f"http://{host}/x.wav") as file:
        assert (file.seek(-3, 2), file.read(), file.seek(10), file.read(2)) == (
            len(CONTENT) - 3,
            CONTENT[-3:],
            10,
            CONTENT[10:12],
        )
    assert storage.read_bytes(f"http://{host}/a%20b%3F.wav") == b"odd"
    assert storage.exists(f"http://{host}/x.wav")
    assert not storage.exists(f"http://{host}/none.wav")


def test_a_redirect_leads_only_to_allowed_servers(host: str) -> None:
    port = host.rsplit(":", 1)[-1]
    storage = allowing(host)
    assert storage.open(f"http://{host}/to/http://{host}/x.wav").read() == CONTENT
    _Server.asked.clear()
    problem = refusal(storage, f"http://{host}/to/http://localhost:{port}/x.wav")
    assert f"allow it with --allow-hosts localhost:{port}" in str(problem)
    assert problem.refused
    assert set(_Server.asked) == {f"/to/http://localhost:{port}/x.wav"}
    for elsewhere in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
        assert not refusal(storage, f"http://{host}/to/{elsewhere}").missing


def test_failures_are_told_apart(host: str) -> None:
    storage = allowing("127.0.0.1")
    gone = refusal(storage, f"http://{host}/status/410")
    assert (str(gone), gone.missing) == (f"http://{host}/status/410 does not exist", True)
    assert refusal(storage, f"http://{host}/none.wav").missing
    for status in (403, 500, 503):
        _Server.asked.clear()
        problem = refusal(storage, f"http://{host}/status/{status}")
        assert str(status) in str(problem)
        assert (problem.missing, problem.not_delivered) == (False, True)
        assert len(_Server.asked) == (2 if status == 403 else 8)  # HEAD and GET, tried again
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}/x.wav"
        for read in (storage.open, storage.exists, storage.read_bytes):
            with pytest.raises(StorageError, match="cannot be reached") as caught:
                read(dead)
            assert (caught.value.missing, caught.value.not_delivered) == (False, True)


def test_what_the_row_of_a_clip_says(host: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(8000) / 9) / 2, 16_000)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{unused.getsockname()[1]}"
        named = {
            f"http://{host}/tone.wav": None,
            f"http://{host}/x.wav": "undecodable",
            f"http://{host}/none.wav": "not_found",
            f"http://{host}/status/503": "unreadable",
            f"http://{dead}/x.wav": "unreadable",
            "http://other.example/x.wav": "not_a_file",
            f"ftp://{host}/x.wav": "not_a_file",
            f"simplecache::http://{host}/x.wav": "not_a_file",
            "file://host/x.wav": "not_a_file",
            "/dev/zero": "not_a_file",
            str(tmp_path): "not_a_file",
            (tmp_path / "tone.wav").as_uri(): None,
        }
        path = tmp_path / "m.jsonl"
        path.write_text("\n".join(json.dumps({"audio": place}) for place in named))
        shard = Shard(str(path), path.name, "manifest", path.stat().st_size, "v1")
        storage, none = allowing(host, dead), Passthrough(pa.schema([]))
        featurizer = Featurizer(
            SeamlessM4TFeatureExtractor(), storage, none.schema, WindowPlan(3000, 200), FeatureOptions()
        )
        clips = (table for part in split(shard, storage) for table in read_parts([part], storage, none))
        rows = [row for table in clips for features in featurizer(table) for row in features.to_pylist()]
    codes = [row["error"] and row["error"]["code"] for row in rows]
    assert dict(zip(named, codes, strict=True)) == named


def test_a_file_without_end_is_given_up(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_LONGEST", 1 << 20)
    problem = refusal(allowing("127.0.0.1"), f"http://{host}/endless")
    assert "comes in one piece" in str(problem)
    assert problem.refused


def test_a_large_file_comes_in_parts_where_the_server_gives_them() -> None:
    for host in serve(_Parts):
        _Parts.ranges.clear()
        with allowing(host).open(f"http://{host}/x.wav", block_size=1 << 16) as file:
            size = len(_Parts.data)
            assert (file.size, file.seek(5_000_000), file.read(3)) == (
                size,
                5_000_000,
                _Parts.data[5_000_000:5_000_003],
            )
        fetched = [wanted for wanted in _Parts.ranges if wanted]
        assert fetched[0] == f"bytes={size - 1}-{size - 1}"
        assert len(fetched) == 2


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://h/x.wav",
        "data://text,x",
        "memory://x.wav",
        "github://a/x.wav",
        "zip://x.wav::http://h/x.zip",
        "simplecache::http://h/x.wav",
        "filecache::s3://b/x.wav",
        "local:///etc/passwd",
        "reference://x",
        "smb://h/x",
        "sftp://h/x",
        "libarchive://x::file:///y.zip",
        "nosuch://x",
    ],
)
def test_no_other_protocol_leads_around(uri: str) -> None:
    storage = allowing("h")
    problem = refusal(storage, uri)
    assert "no filesystem for" in str(problem)
    assert problem.refused
    with pytest.raises(StorageError):
        storage.exists(uri)
    with pytest.raises((StorageError, JobError)):
        storage.find(storage.normalise(uri))
