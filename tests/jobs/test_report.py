"""`--report` of a job: after the summary, a page of its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.transcribe import main
from tests.conftest import ROOT

DEMO = ROOT / "demo"


def test_a_job_writes_its_report(
    demo_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where nothing is new."""
    output = tmp_path / "report.html"
    told = ["--input", DEMO / "corpus", "--model", DEMO / "checkpoint", "--output", demo_table]
    assert main([*map(str, told), "--report", str(output)]) == 0
    *_, path, heard = capsys.readouterr().out.splitlines()
    assert path.split()[:2] == ["report", str(output)]
    assert heard.strip() == "30 of 30 clips are listed, 29 can be heard"
    page = output.read_text(encoding="utf-8")
    assert "undecodable" in page
    assert page.count('<script type="text/plain" id="audio-') == 29


def test_a_report_that_fails_leaves_the_table(
    demo_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    told = ["--input", DEMO / "corpus", "--model", DEMO / "checkpoint", "--output", demo_table]
    assert main([*map(str, told), "--report", str(tmp_path / "file" / "report.html")]) in (1, 2)
    assert "report" in capsys.readouterr().err
