"""Names are data: paths and URIs of any spelling, and the places that they are."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import JobError
from pipeline.storage import (
    Places,
    Storage,
    StorageError,
    StorageOptions,
    as_hosts,
    as_places,
    as_utf8,
    in_utf8,
    is_remote,
    join,
    name_in_utf8,
    path_of,
    resolve,
    uri_of,
)

STORAGE = Storage(StorageOptions())
ODD = ["out ?", "out;", "why?.wav", "take #2", "100%", "a%20b", "[1]*", " blank ", "new\nline", "a:b", "a::b"]
ODD += [
    "caf\u00e9",
    "cafe\u0301",
    "x://y",
    "s3:",
    "~tilde",
    "back\\slash",
    "trailing?",
    "\U0001f600",
    "-dash",
]


def test_one_spelling_per_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = ["x", "./x", "x/", "~/x", "sub/../x", ".//x", f"/{tmp_path}//x", f"{tmp_path}/x"]
    spellings += [f"file://{tmp_path}/x", f"FILE://{tmp_path}/x", f"file://localhost{tmp_path}/x"]
    spellings += [f"file:{tmp_path}/x", f"file://{tmp_path}/%78", (tmp_path / "x").as_uri()]
    assert {STORAGE.normalise(given) for given in spellings} == {f"{tmp_path}/x"}


def test_two_dots_lead_where_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "far" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "deep")
    (tmp_path / "far" / "x").write_bytes(b"far")
    (tmp_path / "x").write_bytes(b"near")
    given = f"{tmp_path}/link/../x"
    assert Path(given).read_bytes() == b"far"
    assert STORAGE.normalise(given) == resolve(f"{tmp_path}/link/m.jsonl", "../x") == f"{tmp_path}/far/x"


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    assert STORAGE.normalise(str(path)) == STORAGE.normalise(path.as_uri()) == str(path)
    assert resolve(f"{tmp_path}/in/m.jsonl", f"./{name}") == str(path)
    STORAGE.write_bytes(str(path), b"here")
    assert path.read_bytes() == STORAGE.read_bytes(path.as_uri()) == b"here"
    assert [file.uri for file in STORAGE.find(str(tmp_path))] == [str(path)]
    assert STORAGE.list_files(str(tmp_path), recursive=True) == [str(path)]
    assert not STORAGE.is_glob(str(path))
    STORAGE.remove(str(path))
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a?b", "a#b", "a;b", "100%", "a%20b", "x?versionId=y", "[1]*", " ", "a//b", "é"]
)
def test_a_key_is_taken_as_it_is(bucket: str, name: str) -> None:
    storage, home = Storage(StorageOptions().with_environment()), f"{bucket}/keys-{len(name)}-{name[-1:]}/in"
    uri = f"{home}/{name}"
    storage.write_bytes(uri, b"here")
    storage.write_bytes(f"{home}/x", b"there")
    assert storage.read_bytes(uri) == b"here"
    with storage.open(uri) as file:
        assert file.read() == b"here"
    assert [file.uri for file in storage.find(home)] == sorted([uri, f"{home}/x"])
    assert storage.normalise(uri) == uri
    storage.remove(uri)
    assert [file.uri for file in storage.find(home)] == [f"{home}/x"]


def test_object_stores_take_dots_and_slashes_literally_so_one_looks(bucket: str) -> None:
    storage = Storage(StorageOptions().with_environment())
    storage.write_bytes(f"{bucket}/spelling//odd/../x", b"literal")
    storage.write_bytes(f"{bucket}/spelling/plain/x", b"plain")
    plain = f"{bucket}/spelling/plain"
    spellings = ["spelling//plain", "spelling/./plain/", "no/../spelling/plain", "spelling/plain//"]
    assert {storage.normalise(f"{bucket}/{given}") for given in spellings} == {plain}
    assert storage.normalise(plain.replace("s3://", "s3a://")) == storage.normalise(plain) == plain
    assert storage.normalise(f"{bucket}/spelling//odd/") == f"{bucket}/spelling//odd"
    assert storage.normalise(f"{bucket}/spelling//odd/../x") == f"{bucket}/spelling//odd/../x"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "an empty path names no place"),
        ("file://host/x.wav", r"file://host/x\.wav is a file of the host 'host'"),
        ("file://data/x.wav", "not of this one"),
        ("s3://key:secret@bucket/x", "carries credentials"),
    ],
)
def test_what_is_no_place_is_told(given: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        STORAGE.normalise(given)


def test_a_file_of_another_host_is_refused_when_it_is_opened() -> None:
    assert resolve("/in/m.jsonl", "file://host/x.wav") == "file://host/x.wav"
    with pytest.raises(StorageError, match="of the host 'host'") as caught:
        STORAGE.open("file://host/x.wav")
    assert (caught.value.refused, caught.value.missing, caught.value.not_delivered) == (True, False, False)


@pytest.mark.parametrize(
    ("base", "path", "leads"),
    [
        ("/in/m.jsonl", "./a/x.wav", "/in/a/x.wav"),
        ("/in/m.jsonl", "/x.wav", "/x.wav"),
        ("/in/m.jsonl", "//x//y.wav", "/x/y.wav"),
        ("/in/m.jsonl", "a?b#c%20d.wav", "/in/a?b#c%20d.wav"),
        ("/in/m.jsonl", "file:///a%20b.wav", "/a b.wav"),
        ("/in/m.jsonl", "file://localhost/a%3Fb.wav", "/a?b.wav"),
        ("/in/m.jsonl", "file:///m%E0.wav", "file:///m%E0.wav"),
        ("/in/m.jsonl", "m\udce0.wav", "file:///in/m%E0.wav"),
        ("/in/m.jsonl", "s3a://b/x//y.wav", "s3://b/x//y.wav"),
        ("/in/m.jsonl", "S3://b/x.wav", "s3://b/x.wav"),
        ("file:///m%E0/m.jsonl", "a b%20.wav", "file:///m%E0/a%20b%2520.wav"),
        ("s3://b/in/m.jsonl", "../x.wav", "s3://b/x.wav"),
        ("s3://b/in/m.jsonl", "../../../x.wav", "s3://b/x.wav"),
        ("s3://b/in//deep/m.jsonl", ".//a/x.wav", "s3://b/in//deep/a/x.wav"),
        ("s3://b/in/m.jsonl", "file:///a%20b.wav", "/a b.wav"),
        ("http://h/in/m.jsonl", "a b?.wav", "http://h/in/a%20b%3F.wav"),
        ("http://h/in/m.jsonl", "../x.wav", "http://h/x.wav"),
    ],
)
def test_relative_paths_start_at_the_file_that_names_them(base: str, path: str, leads: str) -> None:
    assert resolve(base, path) == leads


@pytest.mark.parametrize(
    "path", ["\ud800.wav", "../a\0.wav", "file://host/x", "nowhere://x", "zip://a::s3://b/c"]
)
def test_a_path_that_leads_nowhere_stays_as_it_is(path: str) -> None:
    assert resolve("/in/m.jsonl", path) in (path, f"/in/{path}", posixpath.normpath(f"/in/{path}"))


NAMES = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {*name} & {0, 47} and name not in (b".", b"..")
)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_every_local_path_has_one_spelling_in_utf8(names: list[bytes]) -> None:
    raw = b"/" + b"/".join(names)
    path = os.fsdecode(raw)
    uri = in_utf8(path)
    uri.encode()
    assert uri in (path, Path(path).as_uri())
    assert (uri == path) == (raw.decode(errors="replace").encode() == raw)
    assert os.fsencode(path_of(uri)) == raw
    assert uri_of("/somewhere", path_of(uri)) == uri == STORAGE.normalise(uri)
    assert path_of(join(uri, "a%20b", "c")) == f"{path}/a%20b/c"
    name_in_utf8(os.fsdecode(names[0])).encode()


def test_places_as_users_give_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_utf8("a b") == "a b"
    assert as_utf8("m\udce0") == f"file://{tmp_path}/m%E0"
    assert STORAGE.normalise(as_utf8("m\udce0*.wav")) == f"file://{tmp_path}/m%E0%2A.wav"
    assert STORAGE.is_glob(f"file://{tmp_path}/m%E0%2A.wav")
    with pytest.raises(ValueError, match="not UTF-8"):
        as_utf8("s3://b/\udce0")
    with pytest.raises(ValueError, match="empty path"):
        as_places(["in", ""])


def test_names_of_servers() -> None:
    assert as_hosts("a.example, B.example:80,[::1]:8080") == ["a.example", "b.example:80", "[::1]:8080"]
    for wrong in ("http://a.example", "a.example/x", "", "a b"):
        with pytest.raises(ValueError, match=r"must be a server's name"):
            as_hosts(wrong)


def test_what_is_a_uri() -> None:
    local = ["x", "/a://b", "a/b://c", "-x://y", "1x://y"]
    remote = [
        "s3://b/x",
        "S3://b",
        "zip://x::http://y",
        "simplecache::s3://b/x",
        "data://x",
        "file:///x",
        "file:/x",
    ]
    assert [name for name in [*local, *remote] if is_remote(name)] == remote
    for uri in ("s3://bucket/a/b", "/a/b", "gs://a"):
        assert uri_of(uri, path_of(uri)) == uri


def test_places_of_two_spellings(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "x.wav").write_bytes(b"")
    (tmp_path / "real" / "alias.wav").symlink_to("x.wav")
    places = Places()
    assert places.of(f"{tmp_path}/link", "a/x.wav") == f"{tmp_path}/real/a/x.wav"
    assert places.of_file(f"{tmp_path}/link/alias.wav") == f"{tmp_path}/real/alias.wav"
    assert places.of("s3a://b/in/", "x") == places.of_file("s3://b/in/x") == "s3://b/in/x"
    assert places.of_file("file://host/x") == "file://host/x"
    assert places.of_file("file:///m%E0.wav") == places.of("/", "m\udce0.wav")
