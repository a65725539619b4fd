"""A format of somebody else: one class, registered, and nothing else is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from jobs.cli import read_spec
from jobs.export import main
from pipeline.errors import JobError
from pipeline.export.document import FORMATS, Content, Document, identity, register
from pipeline.export.spec import ExportSpec
from pipeline.export.table import Row, Table


class Tsv(Document):
    """A line a word: clip, start, end, word; no file without a word."""

    name = extension = "tsv"
    one_per_clip = False
    needs_a_clip = True

    @classmethod
    def columns(cls, table: Table, content: Content) -> Mapping[str, str]:
        table.require("words", purpose="tsv")
        return identity("words")

    @classmethod
    def missing(cls, row: Row) -> str | None:
        return None if row["words"] else "without words"

    def add(self, row: Row) -> None:
        for word in row["words"]:
            fields = (row["clip_id"], f"{word['start_s']:.2f}", f"{word['end_s']:.2f}", word["word"])
            self._write("\t".join(fields) + "\n")


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(Tsv)
    yield
    del FORMATS["tsv"]


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there is a format tsv already"):
        register(Tsv)


def test_it_is_exported(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["--table", str(table), "--format", "tsv", "--output"]
    assert main([*told, str(tmp_path / "words.tsv")]) == 0
    assert (tmp_path / "words.tsv").read_text() == (
        "a b.tar#Hello\t0.02\t0.42\thello\na b.tar#Hello\t0.50\t0.98\tworld\n"
        "b.tar#long\t0.10\t0.40\tone\nb.tar#long\t1.50\t1.90\ttwo\nb.tar#long\t2.00\t2.50\tthree\n"
    )
    assert "2 written, 3 left out (without words 2, undecodable 1)" in capsys.readouterr().out
    assert main([*told, str(tmp_path / "clips"), "--per-clip"]) == 0
    assert (tmp_path / "clips/b.tar/long.tsv").read_text().count("\n") == 3


def test_the_help_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "{delta,ctm,jsonl,lhotse,nemo,rttm,audacity,elan,srt,vtt,textgrid,tsv}" in shown
    assert (
        "one file for ctm, jsonl, lhotse, nemo, rttm and tsv, one per clip for audacity, elan, srt, " in shown
    )


def test_what_it_cannot_hold_is_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--table", str(table), "--format", "tsv", "--output", str(tmp_path / "out")]
    assert main([*told, "--embeddings"]) == 2
    assert "tsv has no place for them; use format delta or jsonl" in capsys.readouterr().err


def test_an_unknown_format_in_a_file_is_told_the_nearest(tmp_path: Path, table: Path) -> None:
    (tmp_path / "export.yaml").write_text(f"table: {table}\nformat: tvs\noutput: out\n")
    with pytest.raises(JobError, match=r"there is no format 'tvs', but .* and tsv; did you mean 'tsv'"):
        read_spec(ExportSpec, ["--config", str(tmp_path / "export.yaml")], program="jobs/export.py")
