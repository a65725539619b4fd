"""Inputs that went wrong once, as their generators make them: each gives what its README calls right."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import duckdb
import pytest

from pipeline.corpus.clips import Shard
from pipeline.corpus.listing import discover
from pipeline.corpus.readers import READERS, parquet
from pipeline.errors import JobError
from pipeline.metrics.rttm import Marks, Segment, read_rttm
from pipeline.storage import Storage, StorageOptions
from tests.jobs.cases import FIRST, JOBS, LATIN1, SECOND, STRINGS, Done, by_file, columns, do, found, make

STORAGE = Storage(StorageOptions())


@pytest.fixture(scope="module")
def done(
    shared_cases: Path,
    shared_data: Path,
    shared_models: Path,
    local_ray: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Done:
    home = tmp_path_factory.mktemp("cases")
    make(shared_cases, home, [case for cases in JOBS.values() for case in cases])
    (home / "18-parquet-path-only" / "strings.parquet").rename(home / "strings.parquet")  # no job takes it
    return do(home, shared_models / "digits-ctc")


def test_every_case_has_a_test(shared_cases: Path) -> None:
    names = {path.name for path in shared_cases.iterdir() if path.is_dir() and path.name[:1].isdigit()}
    tests = {name.removeprefix("test_").replace("_", "-") for name in globals() if re.match(r"test_\d", name)}
    assert tests == names


def test_02_empty_wav_with_tags(done: Done) -> None:
    rows = by_file(done.of("02-empty-wav-with-tags"))
    assert found(rows) == {"empty-then-id3.wav": "empty", "speech-then-id3.wav": FIRST}
    assert rows["speech-then-id3.wav"]["duration_s"] == 24341 / 8000


def test_03_wav_variants(done: Done) -> None:
    rows = by_file(done.of("03-wav-variants"))
    assert len(rows) == 70
    others = {
        **dict.fromkeys(("zero-bytes.wav", "samples-0.wav"), "empty"),
        **{f"samples-{count}.wav": "too_short" for count in (1, 2, 100, 159, 200, 279)},
        **{f"samples-{count}.wav": "s" for count in (280, 281, 400)},  # of the 35 ms that a frame takes
        **{f"rate-{rate}.wav": "nine ei" for rate in (11025, 22050, 44100, 192000)},  # a second of it
        **dict.fromkeys(("rate-0.wav", "rate-999.wav"), "bad_sample_rate"),
        **dict.fromkeys(
            ("channels-0.wav", "header-only.wav", "html-error-page.wav", "git-lfs-pointer.wav"), "undecodable"
        ),
        # Speech times 1e200 is infinite in the decoders' float32; times 1e-30 it is digital silence.
        **dict.fromkeys(("all-nan.wav", "one-nan.wav", "one-inf.wav", "huge-double.wav"), "non_finite"),
        **dict.fromkeys(("denormal.wav", "silence.wav", "dc-only.wav"), ""),
    }
    assert found(rows) == dict.fromkeys(rows, FIRST) | others
    # Blocks of IMA ADPCM are filled up, and nothing tells how far; a second header is 22 samples.
    longer = {"ima_adpcm.wav": 3.093125, "double-header.wav": 24363 / 8000}
    speech = {name: row["duration_s"] for name, row in rows.items() if name not in others}
    assert speech == dict.fromkeys(speech, 24341 / 8000) | longer
    assert (rows["six-channels.wav"]["channels"], rows["rate-192000.wav"]["sample_rate"]) == (6, 192000)


def test_04_ogg_chained(done: Done) -> None:
    rows = by_file(done.of("04-ogg-chained"))
    both = dict.fromkeys(("chained.ogg", "chained.opus", "chained-mp3.mp3"), f"{FIRST} {SECOND}")
    assert found(rows) == both | dict.fromkeys(("first.ogg", "first.opus"), FIRST)
    assert [rows[name]["duration_s"] for name in both] == pytest.approx([7.152] * 3, abs=1e-3)


def test_06_mp3_oddities(done: Done) -> None:
    rows = by_file(done.of("06-mp3-oddities"))
    assert len(rows) == 14
    # The README does not say what is right of damage. A clip must not be shorter than its file in silence:
    # "damaged-middle" would be 2.991 s, "nine eight sive two five".
    errors = {
        **dict.fromkeys(("cut-in-half.mp3", "cut-in-half-no-xing.mp3", "damaged-end.mp3"), "truncated"),
        "damaged-middle.mp3": "undecodable",
    }
    assert found(rows) == dict.fromkeys(rows, FIRST) | errors
    counted = ("as-is", "id3-cover-xing", "zeros-before", "junk-before")
    whole = {f"{name}.mp3": 24341 * 2 / 16000 for name in counted}
    # Without the frame that says so, nobody knows of the padding.
    bare = ("no-xing", "id3-cover", "zeros-after", "id3v1-after", "ape-after", "free-tail-sync")
    whole |= {f"{name}.mp3": 3.132 for name in bare}
    assert {name: row["duration_s"] for name, row in rows.items() if name not in errors} == whole


def test_07_flac_oddities(done: Done) -> None:
    rows = by_file(done.of("07-flac-oddities"))
    errors = {"cut.flac": "truncated", "no-length-cut.flac": "truncated"}
    sound = ("as-is.flac", "no-length.flac", "id3-before.flac", "id3v1-after.flac", "wrong-md5.flac")
    assert found(rows) == dict.fromkeys(sound, FIRST) | errors
    assert {rows[name]["duration_s"] for name in sound} == {24341 / 8000}


def test_08_symlinks(done: Done) -> None:
    keys = ("plain.wav#plain", "linked.wav#linked", "linked-folder/inside.wav#inside")
    assert found(done.of("08-symlinks")) == dict.fromkeys(keys, FIRST)
    (aside,) = [line for line in done.said["out ?"] if " left aside: " in line]
    assert "1 dangling link" in aside
    assert "1 looping link" in aside


def test_09_file_names(done: Done) -> None:
    home = done.home / "09-file-names"
    names = [file.relative_to(home) for file in home.rglob("*") if file.is_file()]
    names = [name for name in names if name.suffix.lower() == ".wav" and "__MACOSX" not in name.parts]
    visible = [name for name in names if not name.name.startswith(".")]
    assert (len(names) - len(visible), len(visible)) == (2, 38)
    assert found(done.of("09-file-names")) == {f"{name}#{name.stem}": "nine ei" for name in visible}
    assert any("4 hidden names" in line for line in done.said["out ?"])
    escaped = "mod%E0%20la%20notte"
    keys = (f"{escaped}.wav#{escaped}", "plain.wav#plain")
    assert found(done.of(LATIN1)) == dict.fromkeys(keys, "nine ei")


def test_11_manifest_odd_lines(done: Done) -> None:
    rows = done.of("11-manifest-odd-lines")
    clips = {
        "bom": (1, 2),
        "bom-in-the-middle": (1, 2),
        "crlf": (1, 3),
        "blank": (4, 7),
        "trailing-comma": (1, 2),
        "array": (1, 2),
        "utf16": (1, 2),
        "names": (1, 2, 3, 4, 5, 12, 13),
        "values": range(1, 11),
    }
    right = {f"{name}.jsonl#{line}": FIRST for name, lines in clips.items() for line in lines}
    right |= {"gz.jsonl.gz#1": FIRST, "gz.jsonl.gz#2": FIRST}
    right["clips/up.flac#up"] = FIRST  # in no manifest; the other two files are clips of lines alone
    bad = {
        **dict.fromkeys(("cr-only", "latin1", "single-quotes", "two-on-a-line"), (1,)),
        "pretty": (1, 2, 3, 4),
        "names": (6, 7, 8, 9, 11, 16, 19, 20, 21),
    }
    right |= {f"{name}.jsonl#{line}": "bad_record" for name, lines in bad.items() for line in lines}
    right |= {f"names.jsonl#{line}": "not_found" for line in (10, 14, 15, 18)}
    right["names.jsonl#17"] = "not_a_file"
    assert found(rows) == right
    references = [f"values.jsonl#{line}" for line in (1, 2, 3, 4, 6)]
    assert [rows[key]["ref_text"] for key in references] == [None, "5", "a", "a", "second"]
    mine = columns(rows, "ref_error", "ref_clip_id", "ref_shard", "ref_duration_s", "id")
    assert mine["values.jsonl#3"] == ("mine", "mine", "mine", 7, "u1")


def test_12_manifest_durations(done: Done) -> None:
    rows = {int(key.rpartition("#")[2]): row for key, row in done.of("12-manifest-durations").items()}
    whole, later = 4.10975, 3.10975
    # A duration without an offset is what the manifest says of the file, and no part of it.
    lengths = {**dict.fromkeys((1, 2, 3, 4, 10, 11, 21), whole), **dict.fromkeys((5, 6, 8, 9), later)}
    codes = {
        **dict.fromkeys((7, 18), "truncated"),
        **dict.fromkeys((12, 13, 14, 19, 20), "bad_record"),
        **dict.fromkeys((15, 16, 17, 22, 23), "empty"),
    }
    assert sorted(rows) == list(range(1, 24))
    assert {line: row["error"]["code"] for line, row in rows.items() if row["error"]} == codes
    good = {line: row for line, row in rows.items() if line not in codes}
    assert {line: row["duration_s"] for line, row in good.items()} == lengths
    assert {good[line]["text"] for line, length in lengths.items() if length == whole} == {SECOND}
    assert rows[22]["error"]["message"] == "the part asked for is 1e-09 s long, less than a sample"


def test_14_tar_not_adjacent(done: Done) -> None:
    right = {}
    for number, (text, heard) in enumerate(STRINGS):
        right[f"all-wav-then-all-txt.tar#{number:03}"] = (heard, text, f"s{number}", None)
        right[f"folders.tar#wavs/{number:03}"] = (heard, text, None, None)
    assert columns(done.of("14-tar-not-adjacent"), "text", "ref_text", "speaker", "error") == right


def test_15_tar_dotted_names(done: Done) -> None:
    rows = done.of("15-tar-dotted-names")
    right: dict[str, tuple[str | None, ...]] = {}
    for number, (text, heard) in enumerate(STRINGS):
        right[f"dotted.tar#235342 Track 2.{number} (Clean Version)"] = (heard, text, f"s{number}")
        right[f"dotted-audio-first.tar#spk.{number:03}"] = (heard, text, f"s{number}")
        right[f"dotted-folder.tar#v1.0/{number}"] = (heard, text, None)
        right |= {f"two-audio.tar#{number}.{side}": (heard, text, None) for side in ("left", "right")}
        right[f"data-label.tar#S_02/S_02_{number}_VE1.wav"] = (None, None, None)  # `.data` is no sound
    assert columns(rows, "text", "ref_text", "speaker") == right
    errors = {key: row["error"]["code"] for key, row in rows.items() if row["error"]}
    assert errors == {key: "no_audio" for key in right if key.startswith("data-label")}
    assert {row["ref_label"] for key, row in rows.items() if key in errors} == {"1"}


def test_18_parquet_path_only(done: Done) -> None:
    rows = done.of("18-parquet-path-only")
    codes = {
        **dict.fromkeys((5, 7, 12), "no_audio"),
        **dict.fromkeys((2, 8), "not_found"),
        6: "empty",  # a path beside bytes is but a name, be they none
        10: "not_a_file",
        11: "not_a_file",
    }
    assert found(rows) == {f"struct.parquet#{row}": codes.get(row, FIRST) for row in range(13)}
    with pytest.raises(JobError, match=r"strings\.parquet has no audio column.*path \(string\).*JSONL man"):
        READERS["parquet"].columns(shard(done.home / "strings.parquet"), STORAGE)


def test_19_parquet_columns(done: Done, caplog: pytest.LogCaptureFixture) -> None:
    rows = done.of("19-parquet-columns")
    counts = {"several-audio": 2, "types": 2, "null-rows": 3}
    single = (
        "audio-and-raw colliding same-name-twice large sampling-rate-inside binary-column binary-odd-name"
    )
    counts |= dict.fromkeys([*single.split(), "schema-1", "schema-2", "schema-3"], 1)
    right = {f"{name}.parquet#{row}": "nine ei" for name, count in counts.items() for row in range(count)}
    right |= dict.fromkeys(("null-rows.parquet#0", "null-rows.parquet#2"), "no_audio")
    assert found(rows) == right
    assert not {"as_a_cat", "as_a_dog", "speech", "raw"} & set(rows["several-audio.parquet#0"])
    assert [rows[f"several-audio.parquet#{row}"]["sentence"] for row in (0, 1)] == ["one", "two"]
    assert [rows[f"schema-{number}.parquet#0"]["score"] for number in (1, 2, 3)] == ["1", "0.5", "high"]
    collided = columns(rows, "ref_text", "ref_clip_id", "ref_error", "extra")["colliding.parquet#0"]
    assert collided == (FIRST, "mine", "e", '{"ref_text": "given"}')
    assert columns(rows, "same", "extra")["same-name-twice.parquet#0"] == ("1", '{"same": "2"}')
    parquet._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("several-audio", "audio-and-raw"):
            READERS["parquet"].columns(shard(done.home / "19-parquet-columns" / f"{name}.parquet"), STORAGE)
    assert [message.partition("the audio is column ")[2] for message in caplog.messages] == [
        "as_a_cat; other audio is left out of the table: as_a_dog",
        "audio; other audio is left out of the table: speech, raw",
    ]


def shard(file: Path) -> Shard:
    (found,) = discover([str(file)], STORAGE, outputs=[])
    return found


def test_20_rttm(shared_cases: Path, shared_data: Path, tmp_path: Path) -> None:
    make(shared_cases, tmp_path, ["20-rttm"])
    turns = Marks([Segment("A", 0.5, 3.5), Segment("B", 4.0, 7.0)])
    same = ("good", "tabs", "odd-spacing", "bom", "eight-fields", "nine-fields", "spkr-info")
    right = {**{name: {"meeting": turns} for name in same}, "name-with-ext": {"meeting.flac": turns}}
    refused = {
        "space-in-name": "it has 11 fields, not 8 to 10",
        "negative-duration": "line 3: .*the duration is '-0.2'",
        "comma-decimal": "line 1: .*the start is '0,50'",
        "lower-case": "'speaker' is no type of record",
        "comment": "line 1: .*'#' is no type of record",
        "empty": "holds no SPEAKER record",
        "utf16": "UTF-16: save it as UTF-8",
    }
    files = {file.stem: str(file) for file in (tmp_path / "20-rttm").iterdir()}
    assert files.keys() == right.keys() | refused.keys()
    assert {name: read_rttm("--reference-rttm", files[name], STORAGE) for name in right} == right
    for name, message in refused.items():
        with pytest.raises(JobError, match=message):
            read_rttm("--reference-rttm", files[name], STORAGE)


def test_25_columns_differ_in_case(done: Done) -> None:
    table = done.home / "somewhere" / "out ?" / "*.parquet"
    query = (
        f"SELECT text, ref_text, clip_id, ref_clip_id FROM '{table}' WHERE ref_text IS NOT NULL ORDER BY 3"
    )
    assert duckdb.sql(query).fetchall() == [
        (heard, f"REFERENCE {text}", f"case.parquet#{number}", "abc"[number])
        for number, (text, heard) in enumerate(STRINGS)
    ]
    assert {"ref_Text", "ref_Duration_S", "ref_Clip_ID", "ref_Error"} < set(
        done.of("25-columns-differ-in-case")["case.parquet#0"]
    )


def test_26_output_ends_in_question_mark(done: Done) -> None:
    names = sorted(path.name for path in (done.home / "somewhere").iterdir())
    assert names == ["_out ?.runs", "_out;.runs", "out ?", "out;"]
    assert done.clips == {output: len(rows) for output, rows in done.rows.items()}
    # None lies in no case's folder.
    assert {output: sum(len(done.of(case)) for case in cases) for output, cases in JOBS.items()} == done.clips
