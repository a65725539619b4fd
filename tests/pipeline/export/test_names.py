"""Names of clips as fields of a line and as files."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.export.names import UniqueNames, file_names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
# What file systems trip over, more often than chance has it.
NASTY = st.lists(
    st.sampled_from(
        [
            "..",
            ".",
            "/",
            "#",
            "%",
            "con",
            "NUL.txt",
            " ",
            "\n",
            "\x00",
            "\udce0",
            "a",
            "A",
            "é",
            "é",
            "\\",
            ".srt",
        ]
    )
).map("".join)


@pytest.mark.parametrize(
    ("clip_id", "path"),
    [
        ("shard/path.tar#key", "shard/path.tar/key.srt"),
        ("train.tar#dir/0001", "train.tar/dir/0001.srt"),
        ("a.wav#a", "a.srt"),
        ("in/talk.v2.mp4#talk.v2", "in/talk.v2.srt"),
        ("x.srt.wav#x.srt", "x.srt.srt"),
        ("x.tar#x", "x.tar/x.srt"),
        ("x.wav#y", "x.wav/y.srt"),
        ("x.jsonl#12", "x.jsonl/12.srt"),
        ("x.tar#a#b", "x.tar/a%23b.srt"),
        ("x.tar#../../etc/passwd", "x.tar/%2E%2E/%2E%2E/etc/passwd.srt"),
        ("../up.tar#k", "%2E%2E/up.tar/k.srt"),
        ("/abs.tar#/etc/k", "abs.tar/etc/k.srt"),
        ("x.tar#.hidden", "x.tar/%2Ehidden.srt"),
        ("x.tar#", "x.tar/_.srt"),
        ("x.tar#dir/", "x.tar/dir/_.srt"),
        ("x.tar#dot.", "x.tar/dot%2E.srt"),
        ("x.tar#a:b*c?", "x.tar/a%3Ab%2Ac%3F.srt"),
        ("x.tar#C:\\temp", "x.tar/C%3A%5Ctemp.srt"),
        ("x.tar#line\nbreak\x00", "x.tar/line%0Abreak%00.srt"),
        ("x.tar#50%", "x.tar/50%25.srt"),
        ("x.tar#right\u202eleft", "x.tar/right%E2%80%AEleft.srt"),
        ("con#aux.x", "%63on/%61ux.x.srt"),
        ("control#auxiliary", "control/auxiliary.srt"),
        ("x.tar#COM¹", "x.tar/%43OM¹.srt"),
        ("x.tar#CONIN$", "x.tar/%43ONIN$.srt"),
        ("x.tar#nul .a", "x.tar/%6Eul .a.srt"),
        ("take #2.wav#take #2", "take %232.srt"),
        (os.fsdecode(b"mod\xe0 la.wav#mod\xe0 la"), "mod%E0 la.srt"),
        ("x.SRT#y", "x%2ESRT/y.srt"),
        ("语音.tar#第一句", "语音.tar/第一句.srt"),
    ],
)
def test_file_names(clip_id: str, path: str) -> None:
    assert file_names(clip_id, "srt")[0] == path


def test_names_too_long_are_cut_and_stay_distinct() -> None:
    one, other = (file_names(f"x.tar#{'é' * 300}{end}", "srt")[0] for end in "ab")
    assert one != other
    assert one.startswith("x.tar/éé")
    assert len(one.split("/")[1].encode()) <= 185
    deep, deeper = (file_names(f"x.tar#{'folder/' * 300}{end}", "srt")[0] for end in "ab")
    assert deep != deeper
    assert deep.startswith("x.tar%2Ffolder%2Ffolder")
    assert len(deep.encode()) <= 185
    assert "/" not in deep


@given(NAMES | NASTY)
@example("..#..")
@example("#")
def test_a_file_name_stays_inside_and_exists_on_any_filesystem(clip_id: str) -> None:
    path = file_names(clip_id, "srt")[0]
    assert path.endswith(".srt")
    assert len(path.encode()) <= 800
    for part in path.split("/"):
        assert part not in ("", ".", "..")
        assert part[0] not in ". "
        assert part[-1] not in ". "
        assert len(part.encode()) <= 200
        assert part.isprintable()
        assert not set(part) & set('\\:*?"<>|')
    for folder in path.split("/")[:-1]:
        assert not folder.lower().endswith(".srt")


@given(st.lists(NAMES | NASTY, unique=True, max_size=20))
def test_files_differ_however_a_filesystem_compares(clip_ids: list[str]) -> None:
    with contextlib.closing(UniqueNames("srt")) as names:
        paths = [names.take(file_names(clip_id, "srt")) for clip_id in clip_ids]
    for fold in (str.casefold, lambda path: unicodedata.normalize("NFD", path).casefold()):
        assert len({fold(path) for path in paths}) == len(paths)


def test_names_that_look_alike_are_numbered() -> None:
    given_names = ["x/Ab.srt", "x/aB.srt", "x/ab.srt", "x/ab~2.srt", "x/é.srt", "x/é.srt"]
    with contextlib.closing(UniqueNames("srt")) as names:
        taken = [names.take([name]) for name in given_names]
    assert taken == ["x/Ab.srt", "x/aB~2.srt", "x/ab~3.srt", "x/ab~2~2.srt", "x/é.srt", "x/é~2.srt"]


def test_files_of_one_stem_keep_their_endings_but_for_the_first() -> None:
    ids = ["a/x.wav#x", "a/x.flac#x", "a/X.mp3#X", "b/x.wav#x", "a/x.tar#x"]
    with contextlib.closing(UniqueNames("jsonl.gz")) as names:
        taken = [names.take(file_names(clip_id, "jsonl.gz")) for clip_id in [*ids, "a/x.flac#x"]]
    assert taken == [
        "a/x.jsonl.gz",
        "a/x.flac.jsonl.gz",
        "a/X.mp3.jsonl.gz",
        "b/x.jsonl.gz",
        "a/x.tar/x.jsonl.gz",
        "a/x.flac~2.jsonl.gz",
    ]


def test_every_nasty_name_can_be_written(tmp_path: Path) -> None:
    ids = [
        "a#b",
        "a#../b",
        "a#\x01",
        "a#" + "ß" * 200,
        "a#b/c",
        "a#b.srt/c",
        "NUL#NUL",
        "a#",
        "#",
        "a# ",
        "a#.",
    ]
    for number, clip_id in enumerate(ids):
        file = tmp_path / file_names(clip_id, "srt")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number), encoding="utf-8")
        assert tmp_path in file.resolve().parents
    assert len([file for file in tmp_path.rglob("*") if file.is_file()]) == len(ids)
