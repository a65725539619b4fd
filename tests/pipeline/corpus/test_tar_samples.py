"""Which members of a tar belong together: names, order, and what cannot be joined."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough, merge, reserved_names
from pipeline.corpus.readers import tar
from pipeline.corpus.readers.tar import samples
from pipeline.storage import Storage, StorageError, StorageFile, StorageOptions, filesystems
from tests.conftest import ROOT
from tests.pipeline.corpus.test_readers import CLIPS, STORAGE, TAR, codes, rows, shard

TEXT = Passthrough(pa.schema([("ref_text", pa.string()), ("speaker", pa.string())]))
ENDINGS = ["tar", "tar.gz", "tar.bz2", "tar.xz", "remote"]


@pytest.fixture(autouse=True, scope="module")
def _memory_is_a_store() -> Iterator[None]:
    """In the place of storage that is far away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filesystems, "OTHER_STORES", {"memory"})
        yield


def put(folder: Path, ending: str, members: Sequence[tuple[str, bytes]]) -> Shard:
    """A local shard of this ending, or an uncompressed one of remote storage."""
    compression = ending.partition(".")[2]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}" if compression else "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    if ending == "remote":
        fsspec.filesystem("memory").pipe_file("/tars/x.tar", buffer.getvalue())
        return Shard("memory://tars/x.tar", "x.tar", "tar", len(buffer.getvalue()), "1")
    path = folder / f"x.{ending}"
    path.write_bytes(buffer.getvalue())
    return shard(path, "tar")


def table(file: Shard, carried: Passthrough = TEXT) -> list[dict[str, Any]]:
    return rows(TAR.tables(file, STORAGE, carried), carried)


def texts(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    assert [code for _, code in codes(list(found))] == [None] * len(found)
    return {row["clip_id"].split("#")[1]: row.get("ref_text") for row in found}


def speaker(name: str) -> bytes:
    return json.dumps({"speaker": name}).encode()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("order", [("json", "txt", "wav"), ("wav", "json", "txt")])
@pytest.mark.parametrize("key", ["spk.{}", "235342 Track 2.{} (Clean Version)", "v1.0/a.b.{}.c", "./d.d/{}"])
def test_dots_in_a_key_never_bring_a_neighbours_text(
    tmp_path: Path, ending: str, order: Sequence[str], key: str
) -> None:
    content = [
        {"json": speaker(f"s{i}"), "txt": b"text %d\n" % i, "wav": clip} for i, clip in enumerate(CLIPS[:3])
    ]
    members = [(f"{key.format(i)}.{end}", content[i][end]) for i in range(3) for end in order]
    file = put(tmp_path, ending, members)
    carried = Passthrough(merge([TAR.columns(file, STORAGE)], reserved_names()))
    assert set(carried.schema.names) == {"ref_text", "speaker"}
    found = table(file, carried)
    assert texts(found) == {key.removeprefix("./").format(i): f"text {i}" for i in range(3)}
    assert [row["speaker"] for row in found] == ["s0", "s1", "s2"]
    assert [row["audio"] for row in found] == CLIPS[:3]


@pytest.mark.parametrize("ending", ENDINGS)
def test_extensions_of_several_parts(tmp_path: Path, ending: str) -> None:
    members = [
        ("x.en.txt", b"yes"),
        ("x.wav", CLIPS[0]),
        ("x.txt", b"x"),
        ("x.seg.json", b'[{"start": 0}]'),
        ("x.y.wav", CLIPS[1]),
        ("x.y.en.txt", b"no"),
        ("x.y.wav.txt", b"x.y"),
        ("x.wav.json", speaker("me")),
        ("spk.1.wav", CLIPS[2]),
    ]
    file = put(tmp_path, ending, members)
    found = table(file, Passthrough(merge([TAR.columns(file, STORAGE)], reserved_names())))
    names = ("ref_text", "en.txt", "seg.json", "speaker", "extra")
    assert {row["clip_id"]: tuple(row[name] for name in names) for row in found} == {
        f"{file.name}#x": ("x", "yes", '[{"start": 0}]', "me", None),
        f"{file.name}#x.y": ("x.y", "no", None, None, None),
        f"{file.name}#spk.1": (None,) * 5,
    }


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_audio_members_of_a_key_share_what_is_of_the_key(tmp_path: Path, ending: str) -> None:
    members = [
        (f"{i}.{end}", data)
        for i in range(2)
        for end, data in (("left.wav", CLIPS[i]), ("right.wav", CLIPS[2]), ("txt", b"t%d" % i))
    ]
    # What has a text of its own, and what stands beside a clip of the shorter name, takes no other.
    members += [("a.wav", CLIPS[3]), ("a.txt", b"a"), ("a.1.wav", CLIPS[3])]
    members += [("b.txt", b"b"), ("b.1.wav", CLIPS[3]), ("b.1.txt", b"b.1"), ("b.2.wav", CLIPS[3])]
    assert texts(table(put(tmp_path, ending, members))) == {
        "0.left": "t0",
        "0.right": "t0",
        "1.left": "t1",
        "1.right": "t1",
        "a": "a",
        "a.1": None,
        "b.1": "b.1",
        "b.2": "b",
    }


def apart(count: int) -> list[tuple[str, bytes]]:
    """As `tar cf x.tar *.wav *.txt *.json` writes them."""
    return [
        *((f"{i:03}.wav", CLIPS[i % 4]) for i in range(count)),
        *((f"{i:03}.txt", b"text %d" % i) for i in range(count)),
        *((f"{i:03}.json", speaker(f"s{i}")) for i in range(count)),
    ]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("audio_first", [True, False])
def test_members_that_are_not_side_by_side_are_joined(tmp_path: Path, ending: str, audio_first: bool) -> None:
    members = apart(3) if audio_first else apart(3)[::-1]
    file = put(tmp_path, ending, members)
    assert set(TAR.columns(file, STORAGE).names) == {"text", "speaker"}
    found = sorted(table(file), key=lambda row: str(row["clip_id"]))
    assert texts(found) == {f"{i:03}": f"text {i}" for i in range(3)}
    assert [row["speaker"] for row in found] == ["s0", "s1", "s2"]


def test_a_local_tar_is_joined_whatever_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "_WINDOW_BYTES", 1)
    monkeypatch.setattr(tar, "_MIXED_MEMBERS", 4)
    file = put(tmp_path, "tar", apart(50))
    assert set(TAR.columns(file, STORAGE).names) == {"text", "speaker"}
    assert texts(table(file)) == {f"{i:03}": f"text {i}" for i in range(50)}


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_stream_says_what_it_could_not_join(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(tar, "_WINDOW_BYTES", sum(map(len, CLIPS[:2])) + 1000)
    found = table(put(tmp_path, ending, apart(4)))
    assert codes(found) == [("000", None), ("001", None), ("002", None), ("003", None), ("", "broken_shard")]
    assert [row["ref_text"] for row in found[:2]] == [None, None]
    assert found[3]["ref_text"] == "text 3"
    message = found[-1]["error"]["message"]
    assert "000.txt" in message
    assert "side by side" in message


@pytest.mark.parametrize("ending", ENDINGS[1:])
def test_a_stream_holds_no_more_than_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(tar, "_WINDOW_BYTES", 1)
    members = [
        (f"{i}.{end}", data) for i in range(4) for end, data in (("wav", CLIPS[i]), ("txt", b"t%d" % i))
    ]
    assert texts(table(put(tmp_path, ending, members))) == {str(i): f"t{i}" for i in range(4)}
    # Text before all audio is held, as much as there is room for.
    members = [*((f"{i}.txt", b"t%d" % i) for i in range(4)), *((f"{i}.wav", CLIPS[i]) for i in range(4))]
    assert texts(table(put(tmp_path, ending, members))) == {str(i): f"t{i}" for i in range(4)}
    monkeypatch.setattr(samples, "_LOOSE_BYTES", 1200)
    found = table(put(tmp_path, ending, members))
    assert codes(found) == [*((str(i), None) for i in range(4)), ("", "broken_shard")]
    assert [row["ref_text"] for row in found] == [None, None, "t2", "t3", None]
    assert "2 members are lost to their clips, the first is 0.txt" in found[-1]["error"]["message"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_audio_and_text_in_folders_of_their_own(tmp_path: Path, ending: str) -> None:
    members = [
        ("wav/p1/0.wav", CLIPS[0]),
        ("wav/p2/0.wav", CLIPS[1]),
        ("txt/p1/0.txt", b"p1"),
        ("txt/p2/0.txt", b"p2"),
        ("meta/p2/0.json", speaker("two")),
        ("root.wav", CLIPS[2]),
        ("texts/root.txt", b"root"),
    ]
    found = table(put(tmp_path, ending, members))
    assert texts(found) == {"wav/p1/0": "p1", "wav/p2/0": "p2", "root": "root"}
    assert [row["speaker"] for row in found] == [None, "two", None]


def test_folders_are_not_joined_where_there_is_doubt(tmp_path: Path) -> None:
    members = [
        ("en/0.wav", CLIPS[0]),
        ("de/0.wav", CLIPS[1]),
        ("txt/0.txt", b"whose?"),  # of en/0 or of de/0
        ("a/1.wav", CLIPS[2]),
        ("t1/1.txt", b"one"),  # two texts for one clip
        ("t2/1.txt", b"two"),
        ("b/2.wav", CLIPS[3]),
        ("a/2.txt", b"of a clip that is lost"),  # there is audio in its folder
    ]
    found = table(put(tmp_path, "tar", members))
    clips = [(key, None) for key in ("en/0", "de/0", "a/1", "b/2")]
    lost = [(key, "no_audio") for key in ("txt/0", "t1/1", "t2/1", "a/2")]
    assert codes(found) == [*clips, *lost]
    assert [row["ref_text"] for row in found[:4]] == [None] * 4
    assert "for t2/1.txt" in found[6]["error"]["message"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("order", [("txt", "wav"), ("wav", "txt")])
def test_the_same_names_twice_as_in_joined_tars(tmp_path: Path, ending: str, order: Sequence[str]) -> None:
    half = [[(f"{i}.wav", CLIPS[i + k]), (f"{i}.txt", b"%d of %d" % (i, k))] for k in (0, 2) for i in (0, 1)]
    members = [member for pair in half for member in (pair if order == ("wav", "txt") else pair[::-1])]
    found = table(put(tmp_path, ending, members))
    assert texts(found) == {"0": "0 of 0", "1": "1 of 0", "0~2": "0 of 2", "1~2": "1 of 2"}
    assert [row["audio"] for row in found] == CLIPS


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_second_text_for_one_clip_is_told(tmp_path: Path, ending: str) -> None:
    members = [("0.wav", CLIPS[0]), ("0.txt", b"first"), ("1.wav", CLIPS[1]), ("0.txt", b"second")]
    found = table(put(tmp_path, ending, members))
    assert codes(found) == [("0", None), ("1", None), ("", "broken_shard")]
    assert found[0]["ref_text"] == "first"
    assert "the first is 0.txt" in found[2]["error"]["message"]


_KEY = st.from_regex(r"\A[ab]{1,2}(\.[ab]{1,2}){0,3}\Z")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(_KEY, min_size=1, max_size=6), st.data(), st.sampled_from(["tar", "remote"]))
def test_any_keys_in_any_order(tmp_path: Path, keys: set[str], data: st.DataObject, ending: str) -> None:
    members = [
        (f"d.0/{key}.{end}", content)
        for key in sorted(keys)
        for end, content in (("wav", CLIPS[0]), ("txt", key.encode()), ("json", speaker(key)))
    ]
    found = table(put(tmp_path, ending, data.draw(st.permutations(members))))
    assert texts(found) == {f"d.0/{key}": key for key in keys}
    assert {(row["ref_text"], row["speaker"]) for row in found} == {(key, key) for key in keys}


def documented() -> list[tuple[list[str], list[str]]]:
    """Of each row of the table in docs/input.md the names in its two cells."""
    page = (ROOT / "docs" / "input.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    return [(re.findall("`(.*?)`", members), re.findall("`(.*?)`", clips)) for members, clips in rows]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("names", "said"), documented())
def test_the_document_is_true(tmp_path: Path, ending: str, names: list[str], said: list[str]) -> None:
    contents = {"wav": CLIPS[0], "json": b"{}", "txt": b"text"}
    file = put(tmp_path, ending, [(name, contents[name.rpartition(".")[2]]) for name in names])
    carried = Passthrough(merge([TAR.columns(file, STORAGE)], reserved_names()))
    found = texts(table(file, carried))
    assert set(found) == {name.removesuffix(".wav") for name in names if name.endswith(".wav")}
    assert [*found, *(name for name in carried.schema.names if name != "ref_text")] == said
    assert set(found.values()) == ({"text"} if "ref_text" in carried.schema.names else {None})


class _BrokenStorage(Storage):
    """Delivers the first `limit` bytes of a file."""

    limit = 0

    def open(self, uri: str, **arguments: Any) -> StorageFile:
        data = super().open(uri, **arguments).read()

        class File(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                wanted = len(data) if size is None or size < 0 else size
                if self.tell() + wanted > _BrokenStorage.limit:
                    raise OSError(5, "connection lost")
                return super().read(size)

        return StorageFile(File(data), lambda problem: StorageError(self.explain(uri, problem)))


@pytest.mark.parametrize("ending", ["tar", "remote"])
def test_no_clip_is_done_without_what_storage_held_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """It would never be read again, and its text would be lost."""
    members = [
        (f"{i}.{end}", data) for i in range(3) for end, data in (("wav", CLIPS[i]), ("txt", b"t%d" % i))
    ]
    file = put(tmp_path, ending, members)
    for limit in range(0, file.size + 1024, 512):
        monkeypatch.setattr(_BrokenStorage, "limit", limit)
        found = rows(TAR.tables(file, _BrokenStorage(StorageOptions()), TEXT), TEXT)
        kept = {row["clip_id"].split("#")[1]: row["ref_text"] for row in found if row["error"] is None}
        assert kept == {key: f"t{key}" for key in kept}
        assert {row["error"]["code"] for row in found if row["error"]} <= {"undelivered"}
        assert limit > file.size or codes(found)[-1] == ("", "undelivered")
    assert set(kept) == {"0", "1", "2"}
