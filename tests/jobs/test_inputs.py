"""A whole job on a corpus as toolkits leave it: what is told beside the audio arrives in the table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from jobs.transcribe import main
from tests.conftest import ROOT
from tests.jobs.tables import log_of, rows_of

CHECKPOINT = str(ROOT / "demo" / "checkpoint")
WORDS = "six one nine three"  # of demo/audio/clip-0.flac


@pytest.mark.usefixtures("local_ray")
def test_references_beside_the_audio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "in"
    for place in ("loose/x.flac", "loose/y.flac", "kaldi/audio/a.flac"):
        (corpus / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "demo" / "audio" / "clip-0.flac", corpus / place)
    (corpus / "loose" / "x.txt").write_text(WORDS)
    (corpus / "loose" / "notes.pdf").write_text("")
    tables = {
        "wav.scp": "a audio/a.flac\nb cat b.wav |\n",
        "segments": "u1 a 0 -1\n",
        "text": "u1 six one nine four\n",
        "utt2spk": "u1 anna\n",
    }
    for name, text in tables.items():
        (corpus / "kaldi" / name).write_text(text)
    arguments = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--model", CHECKPOINT]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "1 file left aside: 1 *.pdf" in said.out + said.err
    rows = rows_of(tmp_path / "out")
    told = {
        clip_id: (row["text"], row["ref_text"], row["speaker"], row["error"] and row["error"]["code"])
        for clip_id, row in rows.items()
    }
    assert told == {
        "kaldi/wav.scp#b": (None, None, None, "bad_record"),
        "kaldi/wav.scp#u1": (WORDS, "six one nine four", "anna", None),
        "loose/x.flac#x": (WORDS, WORDS, None, None),
        "loose/y.flac#y": (WORDS, None, None, None),
    }
    summary = next(file for file in log_of(tmp_path / "out").glob("2*.json"))
    assert json.loads(summary.read_text())["wer"] == pytest.approx(1 / 8)

    before = rows
    (corpus / "loose" / "y.txt").write_text(WORDS)  # a text that comes later changes no id, and reads nothing
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "3 shards: 3 finished before and skipped, 0 to read" in said.out + said.err
    assert rows_of(tmp_path / "out") == before
