"""A run that goes on after a kill counts and times its own clips, with those done before beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.job import run
from pipeline.reports.summary import format_summary
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from tests.conftest import ROOT
from tests.jobs.tables import log_of

pytestmark = pytest.mark.usefixtures("local_ray")


def corpus(folder: Path) -> Path:
    """Six clips of one to six seconds, two of them errors."""
    folder.mkdir()
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    for seconds in (1, 2, 3, 4):
        soundfile.write(folder / f"{seconds}.wav", sound[: seconds * rate], rate)
    for name in ("empty.wav", "nothing.wav"):
        (folder / name).write_bytes(b"")
    return folder


def kill(output: Path) -> tuple[str, set[str]]:
    """Makes of a table that of a run which was killed: the run, and the clips that still have rows."""
    ledger = Ledger(str(output), Storage(StorageOptions()))
    files = ledger.files()
    (run_id,) = ledger.closed_runs()
    lost = [record for record in files if {"3.wav#3", "nothing.wav#nothing"} & ids(output / record.file)]
    for record in lost:
        ledger.records.replace(record, lambda _: None)
    (log_of(output) / f"{run_id}.json").unlink()
    return run_id, set().union(*(ids(output / record.file) for record in ledger.files()))


def ids(file: Path) -> set[str]:
    return set(pq.read_table(file, columns=["clip_id"])["clip_id"].to_pylist())


def summary_of(output: Path, run_id: str) -> dict[str, Any]:
    text = (log_of(output) / f"{run_id}.json").read_text()
    found: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return found


def test_what_a_start_did_and_what_was_done_before(tmp_path: Path) -> None:
    output = tmp_path / "out"
    spec = TranscribeSpec(
        input=[str(corpus(tmp_path / "in"))],
        output=str(output),
        model=str(ROOT / "demo/checkpoint"),
        rows_per_file=1,
        max_duration_s="inf",
    )
    first = run(spec)
    assert (first.tally.clips, first.before.clips, first.whole.errors["empty"]) == (6, 0, 2)
    assert "done before" not in format_summary(first)
    run_id, done = kill(output)
    assert 0 < len(done) < 6

    again = run(spec)
    assert again.run_id == run_id
    assert (again.tally.clips, again.before.clips) == (6 - len(done), len(done))
    facts = summary_of(output, run_id)
    seconds = {f"{n}.wav#{n}": float(n) for n in (1, 2, 3, 4)}
    done_s = sum(seconds.get(clip_id, 0.0) for clip_id in done)
    assert (facts["clips"], facts["clips_done_before"]) == (6 - len(done), len(done))
    assert facts["hours"] == pytest.approx((10 - done_s) / 3600)
    assert facts["hours_done_before"] == pytest.approx(done_s / 3600)
    errors_before = len(done - seconds.keys())
    assert facts["errors"] == {"empty": 2 - errors_before}
    assert facts["errors_done_before"] == ({"empty": errors_before} if errors_before else {})
    assert facts["error_rate"] == pytest.approx(2 / 6)
    assert facts["rtfx"] == pytest.approx(facts["hours"] * 3600 / facts["wall_s"])
    assert f"done before {len(done)} clips more ({len(done & seconds.keys())} annotated)" in format_summary(
        again
    )

    metadata = pq.read_schema(next(output.glob("*.parquet"))).metadata
    for name in (b"w2vbert.spec", b"w2vbert.models", b"w2vbert.versions"):
        json.loads(metadata[name], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert json.loads(metadata[b"w2vbert.spec"])["max_duration_s"] is None
