"""jobs/speakers.py from its command line to its tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.speakers import main
from pipeline.errors import JobError
from pipeline.speakers.job import run
from pipeline.speakers.spec import SpeakersSpec
from pipeline.speakers.summary import as_json
from tests.jobs.conftest import S3
from tests.jobs.tables import log_of

CLIPS = {"ann": 12, "bob": 8, "cat": 5, "dan": 1}


def corpus() -> pa.Table:
    """Speakers far apart, one clip that failed, in no order."""
    random = np.random.default_rng(0)
    rows = []
    for number, (speaker, clips) in enumerate(CLIPS.items()):
        for clip in range(clips):
            vector = 10 * np.eye(16)[number] + random.standard_normal(16)
            embedding = (vector / np.linalg.norm(vector)).tolist()
            name = f"{speaker}/{clip}.wav#{clip}"
            rows.append({"clip_id": name, "speaker": speaker, "duration_s": 36.0, "embedding": embedding})
    rows.append({"clip_id": "bad.wav#bad", "speaker": "ann", "duration_s": None, "embedding": None})
    schema = pa.schema(
        [
            ("clip_id", pa.string()),
            ("speaker", pa.string()),
            ("duration_s", pa.float64()),
            ("embedding", pa.list_(pa.float32(), 16)),
        ]
    )
    return pa.Table.from_pylist([rows[i] for i in random.permutation(len(rows))], schema)


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    folder = tmp_path / "voices"
    folder.mkdir()
    table = corpus()
    pq.write_table(table.slice(0, 10), folder / "a.parquet")
    pq.write_table(table.slice(10), folder / "b.parquet")
    return folder


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    file = tmp_path / "trials.txt"
    lines = [f"1 ann/0.wav ann/{i}.wav" for i in range(1, 6)] + [f"0 ann/0.wav bob/{i}.wav" for i in range(5)]
    file.write_text("\n".join([*lines, "0 ann/0.wav bad", "1 nobody ann/0.wav"]) + "\n")
    return file


@pytest.mark.slow
def test_speakers_and_trials_in_one_command(voices: Path, trials: Path, tmp_path: Path) -> None:
    command = ["jobs/speakers.py", "--table", voices, "--output", tmp_path / "out", "--trials", trials]
    command += ["--scores", tmp_path / "scores.txt"]
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "trials 5 target, 5 nontarget 2 skipped: 1 names unknown, nobody first; 1 names without" in said
    assert "EER 0.00% at" in said
    assert "clips 27 (26 with an embedding) speakers 4, 1 of a single clip threshold 0.7 (average" in said
    assert "spk_000001: 12 clips, 0.12 h" in said
    assert "purity 1.000 by the 4 speakers of the input V-measure 1.000" in said

    table = pq.read_table(tmp_path / "out" / "speakers.parquet")
    assert table.schema.names == ["clip_id", "speaker_id", "similarity"]
    assert table.schema.types == [pa.string(), pa.string(), pa.float32()]
    rows = {row["clip_id"]: row for row in table.to_pylist()}
    assert rows.keys() == set(corpus()["clip_id"].to_pylist())
    assert rows.pop("bad.wav#bad") == {"clip_id": "bad.wav#bad", "speaker_id": None, "similarity": None}
    names = {"ann": "spk_000001", "bob": "spk_000002", "cat": "spk_000003", "dan": "spk_000004"}
    given = {row["clip_id"]: np.array(row["embedding"]) for row in corpus().to_pylist() if row["embedding"]}
    for clip_id, row in rows.items():
        speaker = clip_id.split("/")[0]
        assert row["speaker_id"] == names[speaker]
        centre = np.sum([vector for name, vector in given.items() if name.startswith(speaker)], axis=0)
        cosine = given[clip_id] @ centre / np.linalg.norm(centre)
        assert row["similarity"] == pytest.approx(cosine, abs=1e-5)
    facts = json.loads(table.schema.metadata[b"w2vbert.speakers"])
    assert facts == {"table": str(voices), "threshold": 0.7, "method": "average linkage"}
    assert "scikit-learn" in json.loads(table.schema.metadata[b"w2vbert.versions"])

    summary = json.loads((log_of(tmp_path / "out") / "speakers.json").read_text())
    assert (summary["speakers"], summary["speakers_of_one_clip"], summary["embedded"]) == (4, 1, 26)
    assert summary["reference"]["purity"] == summary["reference"]["v_measure"] == 1
    assert summary["trials"]["missing_names"] == {"unknown": 1, "without embedding": 1}
    assert [at["p_target"] for at in summary["trials"]["min_dcf"]] == [0.01, 0.05]
    scores = (tmp_path / "scores.txt").read_text().splitlines()
    assert len(scores) == 10
    enroll, test, score, kind = scores[0].split()
    assert (enroll, test, kind) == ("ann/0.wav", "ann/1.wav", "target")
    assert float(score) == pytest.approx(given["ann/0.wav#0"] @ given["ann/1.wav#1"], abs=2e-6)


def test_a_purity_by_hand(tmp_path: Path) -> None:
    """Two groups: ann ann bob, and bob bob: 2 + 2 of 5 clips have their group's speaker."""
    one, other = [1.0, 0.0], [0.0, 1.0]
    columns = {
        "clip_id": list("abcde"),
        "speaker": ["ann", "ann", "bob", "bob", "bob"],
        "embedding": [one, one, one, other, other],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    summary = run(SpeakersSpec(table=str(tmp_path / "t.parquet"), output=str(tmp_path / "out")))
    facts = as_json(summary)
    assert facts["reference"]["purity"] == 0.8
    assert facts["reference"]["homogeneity"] == pytest.approx(0.4325, abs=1e-4)
    assert facts["largest"] == [
        {"speaker_id": "spk_000001", "clips": 3},
        {"speaker_id": "spk_000002", "clips": 2},
    ]
    assert json.loads((log_of(tmp_path / "out") / "speakers.json").read_text()) == facts


def test_a_second_run_replaces_the_first(voices: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for threshold, speakers in ((0.7, 4), (-0.9, 1)):
        summary = run(SpeakersSpec(table=f"{voices}/*.parquet", output=str(output), threshold=threshold))
        assert summary.found
        assert summary.found.speakers == speakers
        assert sorted(path.name for path in output.iterdir()) == ["speakers.parquet"]
        ids = pq.read_table(output / "speakers.parquet")["speaker_id"]
        assert len(set(ids.drop_null().to_pylist())) == speakers


def test_above_the_limit_the_speakers_are_the_same(voices: Path, tmp_path: Path) -> None:
    tables = []
    for name, limit in (("whole", 10_000), ("condensed", 10)):
        summary = run(SpeakersSpec(table=str(voices), output=str(tmp_path / name)), limit=limit)
        assert summary.found
        assert summary.found.method.startswith("BIRCH") == (limit == 10)
        tables.append(pq.read_table(tmp_path / name / "speakers.parquet").to_pylist())
    for whole, condensed in zip(*tables, strict=True):
        assert (whole["clip_id"], whole["speaker_id"]) == (condensed["clip_id"], condensed["speaker_id"])
        assert whole["similarity"] == pytest.approx(condensed["similarity"], abs=1e-5)


@pytest.mark.slow
def test_from_s3_to_s3(moto_s3: S3, tmp_path: Path) -> None:
    pq.write_table(corpus(), tmp_path / "t.parquet")
    moto_s3.client.upload_file(str(tmp_path / "t.parquet"), moto_s3.bucket, "voices/t.parquet")  # type: ignore
    summary = run(SpeakersSpec(table=moto_s3.uri("voices/"), output=moto_s3.uri("speakers")))
    assert summary.found
    assert summary.found.speakers == 4
    moto_s3.client.download_file(moto_s3.bucket, "speakers/speakers.parquet", str(tmp_path / "s.parquet"))  # type: ignore
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 27
    with pytest.raises(JobError, match="--output s3://absent-bucket/speakers does not exist"):
        run(SpeakersSpec(table=moto_s3.uri("voices/"), output="s3://absent-bucket/speakers"))


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    return " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_done_is_told_before_any_work(
    voices: Path, trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "--table", voices)
    assert said.startswith(
        "jobs/speakers.py: nothing to do: give --output to find speakers, --trials to score"
    )
    said = refused(capsys, "--table", voices, "--output", tmp_path / "o", "--scores", "s.txt")
    assert "scores: there is nothing to score without --trials" in said
    assert "holds another table" in refused(capsys, "--table", voices, "--output", voices)
    said = refused(capsys, "--table", tmp_path / "absent", "--output", tmp_path / "o")
    assert "absent does not exist" in said
    trials.write_text("1 a b\nx y\n")
    said = refused(capsys, "--table", voices, "--output", tmp_path / "o", "--trials", trials)
    assert "trials.txt, line 2: neither" in said
    assert not (tmp_path / "o").exists()
    one = tmp_path / "alone" / "speakers.parquet"
    one.parent.mkdir()
    pq.write_table(corpus(), one)
    assert "holds another table" in refused(capsys, "--table", one, "--output", one.parent)


def test_the_missing_extra_is_named(
    voices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    said = refused(capsys, "--table", voices, "--output", voices / "out")
    assert "pip install 'w2vbert[speakers]'" in said


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_others_wrote_is_not_replaced(
    voices: Path, trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others"
    (others / "_run").mkdir(parents=True)
    pq.write_table(pa.table({"clip_id": ["a"], "speaker_id": ["me"]}), others / "speakers.parquet")
    (tmp_path / "table" / "_run").mkdir(parents=True)
    (tmp_path / "table" / "_run" / "table.json").write_text('{"models": {}}')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "speakers.parquet").write_text("half")
    (tmp_path / "notes.txt").write_text("mine")
    before = snapshot(tmp_path)
    for output, why in [
        (others, "holds another table"),
        (tmp_path / "table", "table/_run); speakers are a table of their own"),
        (tmp_path / "table" / "who", "lies in a table or in its log"),
        (tmp_path / "table" / "_run", "lies in a table or in its log"),
        (voices / "who", "lies in the table"),
        (tmp_path / "broken", "holds another table"),
        (tmp_path / "notes.txt", "is a file, and a directory is needed"),
    ]:
        assert why in refused(capsys, "--table", voices, "--output", output)
    for scores, why in [
        (trials, "trials.txt is there already and holds no scores"),
        (tmp_path / "notes.txt", "notes.txt is there already and holds no scores"),
        (voices, "is no ordinary file"),
        (voices / "scores.txt", "lies in the table"),
        (tmp_path / "table" / "_run" / "scores.txt", "lies in a table or in its log"),
    ]:
        assert why in refused(capsys, "--table", voices, "--trials", trials, "--scores", scores)
    assert snapshot(tmp_path) == before


def test_nothing_is_written_before_all_is_known_and_scores_replace_scores(
    voices: Path, trials: Path, tmp_path: Path
) -> None:
    spec = SpeakersSpec(
        table=str(voices), output=str(tmp_path / "out"), trials=str(trials), scores=str(tmp_path / "s.txt")
    )
    before = snapshot(tmp_path)
    with pytest.raises(JobError, match="more than 2 groups"):
        run(spec, limit=2)
    assert snapshot(tmp_path) == before
    run(spec)
    (tmp_path / "s.txt").write_text((tmp_path / "s.txt").read_text().splitlines(keepends=True)[0])
    run(spec)
    assert len((tmp_path / "s.txt").read_text().splitlines()) == 10


def test_the_summary_is_standard_json(tmp_path: Path) -> None:
    columns = {
        "clip_id": ["a", "b", "c"],
        "duration_s": [36.0, float("nan"), float("inf")],
        "embedding": [[1.0, 0.0]] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    run(SpeakersSpec(table=str(tmp_path / "t.parquet"), output=str(tmp_path / "out")))
    text = (log_of(tmp_path / "out") / "speakers.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["largest"] == [{"speaker_id": "spk_000001", "clips": 3, "hours": 0.01}]
