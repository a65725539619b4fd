"""Names are data, from the command line to the table: whatever inputs, outputs and clips are called."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from jobs.transcribe import main
from tests.conftest import ROOT
from tests.jobs.tables import rows_of

CHECKPOINT = str(ROOT / "demo" / "checkpoint")
CLIP = ROOT / "demo" / "audio" / "clip-0.flac"
LATIN1 = b"mod\xe0 la notte.flac".decode(errors="surrogateescape")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Clips of odd names, a manifest that names what is no file, and what is no audio."""
    home = tmp_path / "in #1?"
    (home / "_folder").mkdir(parents=True)
    for name in ("100%.flac", "a%20b.flac", "_folder/why?.flac", LATIN1):
        shutil.copy(CLIP, home / name)
    (home / "linked.flac").symlink_to(CLIP)
    (home / "gone.flac").symlink_to("nowhere")
    (home / "notes.txt").write_text("notes")
    os.mkfifo(tmp_path / "pipe")
    listed = [
        "a%20b.flac",
        (home / LATIN1).as_uri(),
        "/dev/zero",
        str(tmp_path / "pipe"),
        "/proc/self/environ",
        "simplecache::http://127.0.0.1:1/x.wav",
        "none.wav",
    ]
    lines = [json.dumps({"audio_filepath": place}) for place in listed]
    (home / "m.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return home


def test_a_job_of_odd_names(
    corpus: Path, tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = corpus / "out ?"
    flags = ["--output", str(output), "--model", CHECKPOINT]
    assert main(["--input", str(corpus), *flags]) == 0
    said = capsys.readouterr()
    assert "2 files left aside: 1 *.txt, 1 dangling link" in said.err
    assert "clips" in said.out
    rows = rows_of(output)
    told = {
        clip_id: row["error"] and (row["error"]["code"], row["error"]["message"])
        for clip_id, row in rows.items()
    }
    assert {clip_id for clip_id, error in told.items() if error is None} == {
        "100%.flac#100%",
        "_folder/why?.flac#why?",
        "linked.flac#linked",
        "m.jsonl.gz#1",
        "m.jsonl.gz#2",
    }
    assert {row["text"] for row in rows.values() if row["error"] is None} == {rows["100%.flac#100%"]["text"]}
    failed = {clip_id.split("#")[1]: error for clip_id, error in told.items() if error is not None}
    said_of = {
        "3": ("not_a_file", "/dev/zero is a device"),
        "4": ("not_a_file", "is a pipe"),
        "5": ("not_a_file", "is a file of the kernel"),
        "6": ("not_a_file", "no filesystem for 'simplecache::http://'"),
        "7": ("not_found", "none.wav does not exist"),
    }
    assert failed.keys() == said_of.keys()
    for key, (code, message) in said_of.items():
        assert failed[key][0] == code
        assert message in failed[key][1]

    before = sorted(output.glob("*.parquet"))
    (tmp_path / "link").symlink_to(corpus)
    for spelled, out in (
        (corpus.as_uri(), f"{tmp_path}/link/./out ?"),
        (f"{tmp_path}//{corpus.name}/_folder/..", output.as_uri()),
        (str(tmp_path / "link"), str(output)),
    ):
        assert main(["--input", spelled, "--output", out, "--model", CHECKPOINT]) == 0
        assert "nothing is new" in capsys.readouterr().err, (spelled, out)
    assert sorted(output.glob("*.parquet")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([corpus.name, "link", "pipe"])


def test_an_input_and_an_output_that_are_not_utf8(
    tmp_path: Path, local_ray: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / LATIN1
    home.mkdir()
    shutil.copy(CLIP, home / "a b.flac")
    shutil.copy(CLIP, home / LATIN1)
    monkeypatch.setattr(
        sys, "argv", ["x", "--input", str(home), "--output", f"{home}/out \udce0", "--model", CHECKPOINT]
    )
    for found in ("2 to read", "nothing is new"):
        assert main() == 0
        assert found in capsys.readouterr().err
    rows = rows_of(home / "out \udce0")
    assert set(rows) == {"a b.flac#a b", "mod%E0%20la%20notte.flac#mod%E0%20la%20notte"}
    assert {row["error"] for row in rows.values()} == {None}
    assert {row["shard"] for row in rows.values()} == {
        (home / "a b.flac").as_uri(),
        (home / LATIN1).as_uri(),
    }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--input", "", "--output", "out"], "input: an empty path names no place"),
        (["--input", "in", "--output", ""], "output: "),
        (["--input", "in", "--output", "out", "--allow-hosts", "http://h/"], "must be a server's name"),
        (["--input", "/dev/zero", "--output", "out"], "--input /dev/zero: /dev/zero is a device"),
        (
            ["--input", "http://127.0.0.1:1/x.wav", "--output", "out"],
            "allow it with --allow-hosts 127.0.0.1:1",
        ),
        (["--input", "file://host/x.wav", "--output", "out"], "of the host 'host'"),
        (["--input", "in", "--output", "in"], "--input in is, or lies in, the output"),
        (["--input", "in", "--output", "zip://x::http://h/y"], "no filesystem for 'zip://'"),
    ],
)
def test_what_is_no_place_is_told_before_work_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    said: str,
) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(CLIP, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    assert main([*flags, "--model", CHECKPOINT]) == 2
    assert said in capsys.readouterr().err
