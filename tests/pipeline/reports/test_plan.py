"""--plan: what it counts and estimates, on the demo corpus and on shards made to measure."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from jobs.cli import run_job
from pipeline import strict_json
from pipeline.corpus.clips import Shard
from pipeline.errors import JobError
from pipeline.job import plan, prepare
from pipeline.reports.plan import format_plan
from pipeline.spec import AnnotateSpec, EmbedSpec, TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work
from tests.conftest import ROOT
from tests.jobs.peers import build, save

MODEL = str(ROOT / "demo/checkpoint")
CORPUS = ROOT / "demo/corpus"


def spec(*inputs: Path, output: Path, **other: Any) -> TranscribeSpec:
    return TranscribeSpec(input=[str(given) for given in inputs], output=str(output), model=MODEL, **other)


def wav(path: Path, seconds: float) -> None:
    soundfile.write(path, np.zeros(int(16_000 * seconds)), 16_000, subtype="PCM_16")


def test_the_demo_corpus(tmp_path: Path) -> None:
    found = plan(spec(CORPUS, output=tmp_path / "out"))
    assert [(s.name, s.layout, s.clips, s.done) for s in found.shards] == [
        *[(f"loose/{file.name}", "audio", 1, 0) for file in sorted((CORPUS / "loose").iterdir())],
        ("manifest/list.jsonl", "manifest", 6, 0),
        ("parquet/train-00000-of-00001.parquet", "parquet", 10, 0),
        ("webdataset/shard-000000.tar", "tar", None, 0),
    ]
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert found.bytes == sum(file.stat().st_size for file in files)
    assert (found.clips, found.uncounted_shards, found.shards_skipped) == (22, 1, 0)
    assert not (tmp_path / "out").exists()
    facts = json.loads(strict_json.dumps(found.as_json()))
    assert (facts["clips"], facts["bytes"], facts["uncounted_shards"]) == (22, found.bytes, 1)
    assert facts["hours"] == found.hours
    assert facts["shards"][-1] == {**vars(found.shards[-1])}


@pytest.mark.slow
def test_seconds_of_each_layout(tmp_path: Path) -> None:
    home = tmp_path / "in"
    home.mkdir()
    # Loose: only one in two is opened, the rest is extrapolated by size, which here is exact but for headers.
    for number in range(64):
        wav(home / f"{number:02}.wav", 1 + number % 4)
    loose = sum(1 + number % 4 for number in range(64))
    found = plan(spec(home, output=tmp_path / "out"))
    assert found.hours * 3600 == pytest.approx(loose, rel=0.005)
    assert found.hours_basis == "from the headers of 32 clips, by size for all of them"

    records = [{"audio_filepath": f"{n}.mp3", "duration": 2.0} for n in range(3)]
    lines = [*map(json.dumps, records), json.dumps({"audio_filepath": "untold.mp3"}), "{broken"]
    (home / "m.jsonl").write_text("\n".join(lines))
    listed = plan(spec(home / "m.jsonl", output=tmp_path / "out"))
    # Lines without a duration count as the mean of the others.
    assert (listed.clips, listed.hours * 3600) == (5, pytest.approx(10.0))
    assert listed.hours_basis == "from the durations that manifests give 3 clips"

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(48_000), 16_000, format="WAV", subtype="PCM_16")
    audio = pa.array([buffer.getvalue()] * 20, pa.binary())
    options = {"compression": "none", "use_dictionary": False}
    pq.write_table(pa.table({"audio": audio}), tmp_path / "p.parquet", **options)
    table = plan(spec(tmp_path / "p.parquet", output=tmp_path / "out"))
    assert (table.clips, table.hours * 3600) == (20, pytest.approx(60.0, rel=0.01))


def test_a_manifest_without_durations_is_told_by_headers(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", 2)
    wav(tmp_path / "b.wav", 4)
    lines = [{"audio": "a.wav"}, {"audio": "b.wav"}, {"audio": "b.wav", "offset": 1.0}, {"audio": "gone.wav"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = plan(spec(tmp_path / "m.jsonl", output=tmp_path / "out"))
    assert found.hours * 3600 == pytest.approx((2 + 4 + 3) / 3 * 4)


@pytest.mark.slow
@pytest.mark.parametrize("duration", ["NaN", "Infinity", "-Infinity", "1e999", "-5"])
def test_durations_that_are_none_are_told_by_headers(tmp_path: Path, duration: str) -> None:
    wav(tmp_path / "a.wav", 2)
    lines = [f'{{"audio": "a.wav", "duration": {duration}}}\n'] * 3
    (tmp_path / "m.jsonl").write_text("".join(lines))
    found = plan(spec(tmp_path / "m.jsonl", output=tmp_path / "out"))
    assert found.hours * 3600 == pytest.approx(2 * 3)


def test_what_no_header_tells(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"noise")
    found = plan(spec(tmp_path, output=tmp_path / "out"))
    assert (found.hours, found.device_hours, found.clips) == (None, None, 1)
    assert "no header could be read" in format_plan(found)


def test_the_speed_of_earlier_runs_is_the_best_guide(tmp_path: Path) -> None:
    home, output = tmp_path / "in", tmp_path / "out"
    home.mkdir()
    wav(home / "x.wav", 3)
    ledger = Ledger(str(output), Storage(StorageOptions()))
    with ledger.locked():
        ledger.declare(prepare(spec(home, output=output), print).identity)
        for run_id, hours, seconds in (("run1", 1.0, 100.0), ("run2", 3.0, 300.0), ("run3", 0.0, 0.0)):
            ledger.finish(run_id, {"hours": hours, "encoder_s": seconds})
    found = plan(spec(home, output=output))
    # Four hours in 400 s: 36 times as fast as real time.
    assert found.device_hours == pytest.approx(3 / 3600 / 36, rel=1e-3)
    assert found.device_hours_basis.startswith("earlier runs here: the encoder took 400.0 s for 240.0 min")


@pytest.mark.slow
def test_only_what_is_left_counts_and_nothing_changes(tmp_path: Path) -> None:
    home, output = tmp_path / "in", tmp_path / "out"
    home.mkdir()
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="WAV")
    pq.write_table(pa.table({"audio": [buffer.getvalue()] * 10}), home / "p.parquet")
    ledger = Ledger(str(output), Storage(StorageOptions()))
    job = spec(home, output=output)
    fresh = plan(job).hours
    uri = str(home / "p.parquet")
    ids = [f"p.parquet#{number}" for number in range(4)]
    rows = pa.table({"clip_id": ids, "shard": [uri] * 4, "error": pa.nulls(4)})
    with ledger.locked():
        ledger.declare(prepare(job, print).identity)
        ledger.begin(Work("run1", False, [Shard(uri, "p.parquet", "parquet", 1, "old")], {}, 0))
        ledger.writer("run1", rows.schema).write([rows], 0)
        ledger.finish("run1", {})
        # A writer of a killed run left a file, which the job itself would delete.
        ledger.begin(Work("run2", False, [], {}, 0))
        ledger.records.intend("run2", ["run2-0-000000-x.parquet"])
        pq.write_table(rows, output / "run2-0-000000-x.parquet")
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*")}
    for overwrite in (False, True):
        found = plan(spec(home, output=output, overwrite=overwrite))
        (planned,) = found.shards
        assert (planned.clips, planned.done) == (10, 0 if overwrite else 4)
        assert found.clips == (10 if overwrite else 6)
        assert found.hours == pytest.approx(fresh * (1.0 if overwrite else 0.6))
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*")} == before


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    for number in range(1025):
        (tmp_path / f"{number:04}.wav").write_bytes(b"x")
    text = format_plan(plan(spec(tmp_path, output=tmp_path / "out")))
    lines = text.splitlines()
    first = lines.index(next(line for line in lines if line.startswith("shard ")))
    assert lines[first + 1].split() == ["0000.wav", "audio", "1", "B", "1", "0"]
    assert lines[first + 20].split()[0] == "0019.wav"
    assert lines[first + 21] == "… and 1,005 more"
    assert "to read       1,025 shards, 1.02 kB" in lines


def test_as_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", str(CORPUS), "--output", str(tmp_path / "out"), "--plan", "--limit", "5"]
    models = ["--transcribe", MODEL, "--embed", str(ROOT / "demo/embed")]
    assert run_job(AnnotateSpec, [*arguments, *models], program="jobs/annotate.py") == 0
    text = capsys.readouterr().out
    assert "9 shards: 0 finished before and skipped, 9 to read" in text
    assert "at most 5 of them in this run (--limit)" in text
    assert "GFLOP per second of audio, at 50% of the" in text
    assert run_job(AnnotateSpec, [*arguments, "--transcribe", "nowhere"], program="jobs/annotate.py") == 2
    assert "--transcribe nowhere: no such directory" in capsys.readouterr().err


def test_a_condition_that_is_none_stops_the_plan_too(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--where nosuch = 1: "):
        plan(spec(CORPUS, output=tmp_path / "out", where="nosuch = 1"))


def test_a_table_of_other_annotations_stops_the_plan_too(tmp_path: Path) -> None:
    job = spec(CORPUS, output=tmp_path / "out")
    held = {"models": {"transcribe": "sha256:aa", "embed": "sha256:bb"}, **job.output_settings()}
    ledger = Ledger(str(tmp_path / "out"), Storage(StorageOptions()))
    with ledger.locked():
        ledger.declare(held)
    with pytest.raises(JobError, match="holds embed, transcribe; this job would write transcribe, "):
        plan(job)


def test_windows_that_do_not_get_on_stop_the_plan_too(tmp_path: Path) -> None:
    fields = {"add_adapter": True, "num_adapter_layers": 5, "output_hidden_size": 48}  # a stride of 32 frames
    model = str(save(build("embed", **fields), tmp_path / "model"))
    job = EmbedSpec(input=[str(CORPUS)], output=str(tmp_path / "out"), model=model, window_s=1, overlap_s=0.5)
    with pytest.raises(JobError, match=r"--window-s 1 with --overlap-s 0.5 leaves .* one frame of 0.64 s"):
        plan(job)
