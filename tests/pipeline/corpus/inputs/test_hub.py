"""Data sets of the Hub, from a server that answers as the Hub does; and no Hub at all."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfFileSystem

from pipeline.corpus.listing import discover
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageError, StorageOptions, hosts_of
from tests.pipeline.corpus.inputs import reading
from tests.pipeline.corpus.inputs.reading import json_lines, tone, values

STORAGE = Storage(StorageOptions(), hosts_of(["/local", "hf://datasets/speech/tiny"]))


def rows(uri: str) -> dict[str, dict[str, Any]]:
    return reading.rows(uri, storage=STORAGE)


def heard(row: dict[str, Any]) -> tuple[float, float]:
    return reading.heard(row, STORAGE)


class Hub(BaseHTTPRequestHandler):
    """Serves the folders of `root` as the revisions of the data set `speech/tiny`."""

    root: Path
    id = "speech/tiny"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        about, files = f"/api/datasets/{self.id}", f"/datasets/{self.id}/resolve/"
        if path in (about, f"{about}/revision/main", f"{about}/revision/v1"):
            self.answer({"id": self.id, "sha": "0" * 40, "siblings": [], "private": False, "tags": []})
        elif path.startswith(f"{about}/tree/"):
            revision, _, folder = path.removeprefix(f"{about}/tree/").partition("/")
            self.answer([self.entry(revision, file) for file in self.below(revision, folder)])
        elif path.startswith(files) and (file := self.root / path.removeprefix(files)).is_file():
            data = file.read_bytes()
            first, _, last = (self.headers["range"] or "bytes=0-").removeprefix("bytes=").partition("-")
            self.send(206, data[int(first) : int(last or len(data)) + 1])
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        """paths-info"""
        revision = self.path.rpartition("/")[2]
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["paths"]
        paths = [self.root / revision / path for path in asked]
        self.answer([self.entry(revision, path) for path in paths if path.exists()])

    def below(self, revision: str, folder: str) -> list[Path]:
        here = self.root / revision / folder
        return sorted(here.rglob("*") if "recursive=true" in self.path.lower() else here.iterdir())

    def entry(self, revision: str, file: Path) -> dict[str, Any]:
        path = file.relative_to(self.root / revision).as_posix()
        if file.is_dir():
            return {"type": "directory", "oid": "1" * 40, "size": 0, "path": path}
        oid = hashlib.sha1(file.read_bytes()).hexdigest()
        return {"type": "file", "oid": oid, "size": file.stat().st_size, "path": path}

    def answer(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"content-type": "application/json"})

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the revisions that the server has."""
    Hub.root = tmp_path / "hub"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": endpoint, "token": False})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    HfFileSystem.clear_instance_cache()
    yield Hub.root
    HfFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()
    thread.join()


def corpus(folder: Path, text: str) -> None:
    for split, seconds in {"train": 0.1, "test": 0.2}.items():
        tone(folder / "x.wav", seconds)
        audio = [{"bytes": (folder / "x.wav").read_bytes(), "path": "x.wav"}]
        (folder / "x.wav").unlink()
        (folder / "data").mkdir(exist_ok=True)
        table = pa.table({"audio": audio, "text": [f"{text} {split}"]})
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")


def test_splits_and_revisions(hub: Path) -> None:
    corpus(hub / "main", "newest")
    corpus(hub / "v1", "first")
    (hub / "main" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")

    def seen(uri: str) -> dict[str, Any]:
        found = rows(uri)
        return {clip_id: (*values(row, "ref_text", "split"), heard(row)[0]) for clip_id, row in found.items()}

    test = ("newest test", "test", 0.2)
    assert seen("hf://datasets/speech/tiny") == {
        "data/test-00000-of-00001.parquet#0": test,
        "data/train-00000-of-00001.parquet#0": ("newest train", "train", 0.1),
    }
    assert seen("hf://datasets/speech/tiny/data/test-*.parquet") == {"test-00000-of-00001.parquet#0": test}
    first = ("first train", "train", 0.1)
    assert seen("hf://datasets/speech/tiny@v1/data/train-*") == {"train-00000-of-00001.parquet#0": first}


def test_files_that_a_manifest_names(hub: Path) -> None:
    tone(hub / "main" / "clips" / "a.flac", 0.3)
    records = [{"file_name": "clips/a.flac", "text": "one"}]
    (hub / "main" / "metadata.jsonl").write_text(json_lines(records))
    (row,) = rows("hf://datasets/speech/tiny").values()
    assert row["source"] == "hf://datasets/speech/tiny/clips/a.flac"
    assert (row["ref_text"], heard(row)) == ("one", (0.3, 0.5))


def test_a_file_that_changed_has_another_version(hub: Path) -> None:
    corpus(hub / "main", "one")
    before = {
        shard.name: shard.version for shard in reading.listed("hf://datasets/speech/tiny", storage=STORAGE)
    }
    corpus(hub / "main", "two")
    HfFileSystem.clear_instance_cache()
    after = {
        shard.name: shard.version for shard in reading.listed("hf://datasets/speech/tiny", storage=STORAGE)
    }
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_what_is_not_there_is_told(hub: Path) -> None:
    for uri in ("hf://datasets/speech/none", "hf://datasets/speech/tiny@v9"):
        with pytest.raises(JobError, match=f"--input {uri}: does not exist"):
            discover([uri], STORAGE, outputs=[])


def test_without_the_hub_the_way_is_told() -> None:
    """As the tests run: HF_HUB_OFFLINE is set."""
    HfFileSystem.clear_instance_cache()
    with pytest.raises(JobError) as told:
        discover(["hf://datasets/speech/tiny"], STORAGE, outputs=[])
    assert str(told.value) == (
        "--input hf://datasets/speech/tiny: hf://datasets/speech/tiny: the Hub cannot be reached "
        "(HF_HUB_OFFLINE is set). Where it can, download the data set (hf download --repo-type dataset "
        "OWNER/NAME --local-dir FOLDER), and give the folder."
    )


def test_others_do_not_lead_there(hub: Path) -> None:
    """Only who names it as an input, or as a host, allows it."""
    assert hosts_of(["s3://hf/x", "/hf", "http://huggingface.co"]) == frozenset()
    with pytest.raises(StorageError, match=r"is on the Hub, .* --allow-hosts huggingface\.co") as told:
        reading.STORAGE.open("hf://datasets/speech/tiny/x.wav")
    assert told.value.refused
