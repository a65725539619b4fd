"""Nothing is left aside in silence, and names are data: what becomes a shard, under which name."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.corpus.aside import describe
from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.listing import discover, drop_listed_files
from pipeline.corpus.parts import read_parts, split
from pipeline.errors import JobError
from pipeline.storage import Storage, StorageOptions
from pipeline.table.log.place import log_home
from pipeline.table.log.records import file_name

STORAGE = Storage(StorageOptions())
NONE = Passthrough(pa.schema([]))


def put(root: Path | str, *names: str | bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x")


def look(
    *inputs: str | Path, output: str | Path = "elsewhere", **known: dict[str, str]
) -> tuple[list[str], str]:
    """The names of the shards, and what is said of the rest."""
    aside: Counter[str] = Counter()
    shards = discover(list(map(str, inputs)), STORAGE, outputs=[str(output)], left_aside=aside, **known)
    return [shard.name for shard in shards], describe(aside)


def test_the_rest_is_counted_by_kind(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a/x.wav",
        "a/x.txt",
        "a/y.TXT",
        "b/z.txt",
        "b/z.pdf",
        "README",
        "x.wav~",
        "x.7z-part-of-many",
    )
    put(tmp_path, ".git/a.wav", ".git/b.wav", "c/.hidden.wav", "__MACOSX/._x.wav", "._y.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.wav")
    names, said = look(tmp_path)
    assert names == ["a/x.wav"]
    assert said == (
        "4 hidden names, 2 *.txt, 2 oddly named files, 1 *.pdf, 1 dangling link, 1 extensionless file, "
        "1 looping link, 1 pipe"
    )
    assert look(tmp_path / "a") == (["x.wav"], "1 *.txt")
    assert describe({f".{n}": 1 for n in range(20)}).endswith(", 8 of other kinds")
    assert describe({"pipe": 1200}) == "1,200 pipes"


def test_an_input_without_audio_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path, "a.txt")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    with pytest.raises(JobError, match=r"no audio shard there\..* There are 1 \*\.txt, 1 dangling link\.$"):
        look(tmp_path)


def test_linked_files_and_folders_are_clips_under_each_of_their_names(tmp_path: Path) -> None:
    """As a snapshot of huggingface_hub, DVC and git-annex have them."""
    put(
        tmp_path, "cache/blobs/0a1b", "cache/folder/inside.wav", "in/plain.wav", "in/.git/annex/objects/y.wav"
    )
    home = tmp_path / "in"
    (home / "linked.wav").symlink_to("../cache/blobs/0a1b")
    (home / "twin.wav").symlink_to("../cache/blobs/0a1b")
    (home / "annex.wav").symlink_to(".git/annex/objects/y.wav")
    (home / "folder").symlink_to(tmp_path / "cache" / "folder")
    (home / "loop").symlink_to(".")
    names = ["annex.wav", "folder/inside.wav", "linked.wav", "plain.wav", "twin.wav"]
    assert look(home) == (names, "1 hidden name, 1 looping link")
    assert look(f"{home}/*.wav")[0] == [name for name in names if "/" not in name]
    assert look(home / "linked.wav") == (["linked.wav"], "")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "only.wav").symlink_to(home / "plain.wav")
    assert look(tmp_path / "links") == (["only.wav"], "")


ODD = [
    "with space.wav",
    "take #2.wav",
    "100%.wav",
    "a%20b.wav",
    "why?.wav",
    "[1].wav",
    "star*.wav",
    "--input.wav",
]
ODD += [
    "semi;colon.wav",
    "new\nline.wav",
    "a:b.wav",
    "{a,b}.wav",
    "~tilde.wav",
    "\u202eleft.wav",
    "x" * 251 + ".wav",
]
ODD += [
    "caf\u00e9.wav",
    "cafe\u0301.wav",
    "a::b.wav",
    "x: /y.wav",
    "_underscore.wav",
    "_folder [x]/in.wav",
    "a.wav/b.wav",
]


def test_odd_names_are_names(tmp_path: Path) -> None:
    put(tmp_path, *ODD)
    assert look(tmp_path) == (sorted(ODD), "")
    for name in ODD:
        assert look(tmp_path / name)[0] == look((tmp_path / name).as_uri())[0] == [Path(name).name]


@pytest.mark.parametrize(
    "name", ["in?", "in;", "in#", "in%20", "in*", "[in]", " in ", "in\n", "caf\u00e9", "cafe\u0301"]
)
def test_inputs_and_outputs_of_odd_names(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/x.wav", f"{name}/out {name}/y.wav", "in/other.wav")
    for given in (tmp_path / name, (tmp_path / name).as_uri()):
        assert look(given, output=tmp_path / name / f"out {name}")[0] == ["x.wav"]


def test_names_that_are_not_utf8_are_escaped_each_in_its_own_way(tmp_path: Path) -> None:
    put(tmp_path, b"mod\xe0 la notte.wav", "plain.wav", b"\xfc/x y.wav", b"\xfc/\xff.wav")
    put(tmp_path, b"twin%\xe0.wav", "twin%25%E0.wav")
    shards = discover([str(tmp_path)], STORAGE, outputs=["elsewhere"])
    names = {shard.name for shard in shards}
    twins = {"twin%25%E0.wav", f"{tmp_path.name}/twin%25%E0.wav"}
    assert len(names) == 6
    assert names - {name for name in names if "twin" in name} == {
        "mod%E0%20la%20notte.wav",
        "plain.wav",
        "%FC/x%20y.wav",
        "%FC/%FF.wav",
    }
    assert len({name for name in names if "twin" in name} - twins) <= 2
    for shard in shards:
        raw = os.fsencode(tmp_path) + b"/"
        uri = shard.uri.encode()
        path = unquote_to_bytes(uri.removeprefix(b"file://")) if uri.startswith(b"file://") else uri
        assert path.startswith(raw)
        with open(path, "rb") as file:
            assert file.read() == b"x"
        (table,) = read_parts(split(shard, STORAGE), STORAGE, NONE)
        assert table["source"].to_pylist() == table["shard"].to_pylist() == [shard.uri]
        assert STORAGE.read_bytes(shard.uri) == b"x"
    known = {shard.uri: shard.name for shard in shards}
    assert {
        shard.name for shard in discover([str(tmp_path)], STORAGE, outputs=["x"], known_names=known)
    } == names


def test_what_clashes_to_the_end_is_called_by_its_uri(tmp_path: Path) -> None:
    known = {"s3://b/x.wav": f"{str(tmp_path)[1:]}/x.wav", "s3://c/x.wav": "x.wav"}
    parts = str(tmp_path)[1:].split("/")
    known |= {f"s3://{n}/x.wav": "/".join([*parts[n:], "x.wav"]) for n in range(1, len(parts))}
    put(tmp_path, "x.wav")
    assert look(tmp_path, known_names=known)[0] == [f"{tmp_path}/x.wav"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("/dev/zero", "/dev/zero is a device, not a file"),
        ("/proc/self/environ", "/proc/self/environ is a file of the kernel"),
        ("/proc", "/proc is a kernel folder"),
        ("{}/pipe.wav", "pipe.wav is a pipe, not a file"),
        ("{}/socket.wav", "socket.wav is a socket, not a file"),
        ("{}/link.wav", "link.wav is a device, not a file \\(it leads to /dev/zero\\)"),
        ("http://127.0.0.1:1/x.wav", "allow it with --allow-hosts 127.0.0.1:1"),
        ("file://host/x.wav", "of the host 'host'"),
        ("", "an empty path names no place"),
        ("zip://x.wav::http://127.0.0.1:1/x.zip", "no filesystem for 'zip://'"),
    ],
)
def test_an_input_that_is_no_file_is_refused_at_once(tmp_path: Path, given: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket.wav"))
        with pytest.raises(JobError, match=said):
            look(given.format(tmp_path))


def test_tables_are_no_input(tmp_path: Path) -> None:
    put(tmp_path, "in/x.wav", "in/out/_run/table.json", "in/out/_run/files/1.jsonl", "in/out/1.parquet")
    put(tmp_path, "in/out/y.wav", "in/out/sub/z.parquet", "in/_run/plans.jsonl", "in/data/1.parquet")
    put(tmp_path, "in/_two.runs/table.json", "in/_two.runs/files/1.jsonl", "in/two/1.parquet")
    names = ["data/1.parquet", "out/sub/z.parquet", "out/y.wav", "x.wav"]
    assert look(tmp_path / "in") == (names, "7 table files")
    assert look(tmp_path / "in", output=tmp_path / "in" / "out") == (
        ["data/1.parquet", "x.wav"],
        "4 table files",
    )
    for given in (tmp_path / "in" / "out", tmp_path / "in" / "out" / "sub"):
        with pytest.raises(JobError, match="is, or lies in, the output"):
            look(given, output=tmp_path / "in" / "out")


def test_files_of_tables_are_known_without_their_log(tmp_path: Path) -> None:
    """As a glob finds them, a table among several inputs, or a copy."""
    put(tmp_path, "in/x.wav")
    ours = {b"w2vbert.run_id": b"r"}
    audio = pa.table({"audio": [b"RIFF"]})
    names = [
        file_name("20260102T030405Z-0a1b2c-3of16", "d4e5f6-000001", "a1b2c3d4", errors=errors)
        for errors in (False, True)
    ]
    for name in names:
        (tmp_path / "d" / "t").mkdir(parents=True, exist_ok=True)
        pq.write_table(
            pa.table({"clip_id": ["a"]}).replace_schema_metadata(ours), tmp_path / "d" / "t" / name
        )
    (tmp_path / "d" / "who").mkdir()
    speakers = pa.table({"clip_id": ["a"]}).replace_schema_metadata({b"w2vbert.speakers": b"{}"})
    pq.write_table(speakers, tmp_path / "d" / "who" / "speakers.parquet")
    (tmp_path / "d" / "theirs").mkdir()
    for name in (names[0], "speakers.parquet", "ordinary.parquet"):
        pq.write_table(audio, tmp_path / "d" / "theirs" / name)
    put(tmp_path, f"d/damaged/{names[0]}")
    found = [f"theirs/{names[0]}", "theirs/ordinary.parquet", "theirs/speakers.parquet", "x.wav"]
    glob = f"{tmp_path}/d/*/*.parquet"
    assert look(glob, tmp_path / "in") == ([f"damaged/{names[0]}", *found], "3 table files")
    with pytest.raises(JobError, match=r"no audio shard there\..* There are 2 table files\.$"):
        look(tmp_path / "in", tmp_path / "d" / "t")


def test_no_other_parquet_is_opened_for_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.parquet", "20260102T030405Z.parquet", "my-speakers.parquet")
    monkeypatch.setattr(Storage, "open", None)
    assert look(tmp_path)[1] == ""


def test_tables_and_their_logs_are_known_by_any_name(tmp_path: Path) -> None:
    put(tmp_path, "real/x.wav")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "again").symlink_to("real/b?")
    for output in ("real/a", "link/b?", "again", "c"):
        home = log_home(str(tmp_path / output), STORAGE)
        put("/", f"{home}/table.json", f"{home}/files/1.jsonl", f"{tmp_path}/{output}/1.parquet")
    logs = ("_c.runs", "real/_a.runs", "real/_b?.runs")
    assert all((tmp_path / log / "table.json").exists() for log in logs)
    assert look(tmp_path) == (["link/x.wav", "real/x.wav"], "16 table files")


def spellings(tmp_path: Path) -> list[str]:
    (tmp_path / "link").symlink_to("real/corpus")
    (tmp_path / "real" / "back").symlink_to("..")
    return [
        f"{tmp_path}/real/corpus",
        f"{tmp_path}/real/corpus/",
        f"{tmp_path}//real/./corpus",
        f"{tmp_path}/real/sub/../corpus",
        f"{tmp_path}/link",
        f"{tmp_path}/real/back/link/../corpus",
        (tmp_path / "link").as_uri(),
        f"file:{tmp_path}/real/corpus",
        f"{tmp_path}/link/*",
        f"{tmp_path}/real/corp?s",
    ]


def test_the_same_input_in_any_spelling_has_the_same_shards(tmp_path: Path) -> None:
    put(tmp_path, "real/corpus/a/x.wav", "real/corpus/y.wav", "real/sub/z", "far/w.wav")
    (tmp_path / "real" / "corpus" / "far").symlink_to(tmp_path / "far")
    given = spellings(tmp_path)
    assert look(*given)[0] == ["a/x.wav", "far/w.wav", "y.wav"]
    for first in given:
        shards = discover([first], STORAGE, outputs=["elsewhere"])
        known = {shard.uri: shard.name for shard in shards}
        for second in given:
            again = discover([second], STORAGE, outputs=["elsewhere"], known_names=known)
            assert {shard.uri: shard.name for shard in again} == known, (first, second)
            assert {shard.uri: shard.version for shard in again} == {s.uri: s.version for s in shards}


def test_a_table_of_an_earlier_spelling_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of before have `..` in their URIs."""
    put(tmp_path, "real/x.wav", "other/y")
    before = f"{tmp_path}/other/../real/x.wav"
    (shard,) = discover([f"{tmp_path}/real"], STORAGE, outputs=["out"], known_names={before: "x.wav"})
    assert (shard.uri, shard.name) == (before, "x.wav")
    (tmp_path / "real" / "m.jsonl").write_text('{"audio": "x.wav"}')
    shards = discover([f"{tmp_path}/real"], STORAGE, outputs=["out"], known_names={before: "x.wav"})
    assert [shard.name for shard in drop_listed_files(shards, STORAGE)] == ["m.jsonl"]


def test_a_new_link_inside_the_input_is_a_new_name(tmp_path: Path) -> None:
    put(tmp_path, "in/a/x.wav")
    known = {shard.uri: shard.name for shard in discover([str(tmp_path / "in")], STORAGE, outputs=["out"])}
    (tmp_path / "in" / "b").symlink_to("a")
    assert look(tmp_path / "in", known_names=known)[0] == ["a/x.wav", "b/x.wav"]


def test_an_output_inside_the_input_is_none_in_any_spelling(tmp_path: Path) -> None:
    put(tmp_path, "real/corpus/x.wav", "real/corpus/out/y.wav", "real/sub/z", "far/out/w.wav")
    (tmp_path / "real" / "corpus" / "shortcut").symlink_to("out")
    for given in spellings(tmp_path)[:-2]:
        for output in (
            f"{tmp_path}/real/corpus/out",
            f"{tmp_path}/link/out",
            f"{tmp_path}/real/sub/../corpus//out/",
        ):
            assert look(given, output=output)[0] == ["x.wav"], (given, output)
    (tmp_path / "real" / "corpus" / "away").symlink_to(tmp_path / "far")
    assert look(tmp_path / "link", output=tmp_path / "far" / "out")[0] == [
        "out/y.wav",
        "shortcut/y.wav",
        "x.wav",
    ]


@pytest.mark.slow
def test_buckets(bucket: str) -> None:
    """The rules are the same; a store has marks of folders and `s3a://` besides."""
    storage = Storage(StorageOptions().with_environment())
    home = f"{bucket}/listing/in"
    keys = [
        "x y?.wav",
        "_u.wav",
        ".h/a.wav",
        ".h/b.wav",
        "a.txt",
        "folder.wav/",
        "t/_run/table.json",
        "t/1.parquet",
    ]
    keys += ["m.json", "n.json", "d//e.wav", "listed.wav"]
    contents = {"m.json": b'[{"audio": "listed.wav"}]', "n.json": b"{}"}
    for key in keys:
        storage.write_bytes(f"{home}/{key}", contents.get(key, b"x"))

    def look(
        *given: str, output: str = "s3://else/where", known: dict[str, str] | None = None
    ) -> list[Shard]:
        found = discover(given, storage, outputs=[output], known_names=known, left_aside=aside)
        return drop_listed_files(found, storage)

    aside: Counter[str] = Counter()
    shards = look(home)
    assert [shard.name for shard in shards] == ["_u.wav", "d//e.wav", "m.json", "x y?.wav"]
    assert describe(aside) == "2 table files, 1 *.json, 1 *.txt, 1 hidden name"
    known = {shard.uri.replace("s3://", "s3a://"): shard.name for shard in shards}
    for given in (
        home,
        home.replace("s3://", "s3a://"),
        f"{bucket}//listing/./in/",
        f"{bucket}/listing/t/../in",
    ):
        assert {shard.uri: shard.name for shard in look(given, known=known)} == known
        assert {shard.name for shard in look(given, output=f"{home}/d".replace("s3", "s3a"))} == {
            "_u.wav",
            "m.json",
            "x y?.wav",
        }
    assert len(look(home, home.replace("s3://", "S3A://"))) == 4
