"""The analyst's page: its queries, on what README's annotate command really writes, and on losses."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import duckdb
import jiwer
import numpy as np
import pytest

from pipeline.storage import Storage, StorageOptions
from pipeline.training.report.losses import VALID, ClipLoss, LossLog, merge
from tests.conftest import ROOT
from tests.jobs.tables import Row, rows_of

PAGE = (ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^([^\n]+\?[^\n]*)\n\n```sql\n(.+?)```$", PAGE, re.MULTILINE | re.DOTALL)
Answer = list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def output(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """README's command as it stands there, but for the place of the output."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = readme.index(".venv/bin/python jobs/annotate.py")
    command = shlex.split(readme[start : readme.index("--embed demo/embed", start)].replace("\\\n", ""))
    output = tmp_path_factory.mktemp("queries") / "annotated"
    command[command.index("demo/out/annotated")] = str(output)
    command += ["--embed", "demo/embed"]
    subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return output


@pytest.fixture(scope="module")
def rows(output: Path) -> dict[str, Row]:
    return rows_of(output)


@pytest.fixture(scope="module")
def fine(rows: dict[str, Row]) -> dict[str, Row]:
    return {clip_id: row for clip_id, row in rows.items() if row["error"] is None}


@pytest.fixture(scope="module")
def finetuned(fine: dict[str, Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Losses of five epochs, in which all clips but two become easy; the model forgets one for an epoch."""
    home, storage = tmp_path_factory.mktemp("finetuned"), Storage(StorageOptions())
    log = LossLog(str(home / "losses"), storage, rank=0)
    easy, forgotten, *wrong = sorted(fine)[:4]
    for epoch in range(5):
        for number, clip_id in enumerate(sorted(fine)):
            loss = 3.0 + wrong.index(clip_id) if clip_id in wrong else 4.0 / (epoch + 1) + number / 1e3
            loss = 9.0 if (clip_id, epoch) == (forgotten, 3) else loss
            log.add(epoch + 1, epoch, [ClipLoss(clip_id, 1.0, "transcribe", loss, 50, 5)])
        log.add(epoch + 1, epoch, [ClipLoss(easy, 1.0, "classify", 99.0, 50, None)])
        log.add(epoch + 1, epoch, [ClipLoss(easy, 1.0, "transcribe", 99.0, 50, 5)], VALID)
    log.flush(5)
    merge(str(home / "losses"), str(home / "losses.parquet"), storage)
    return home


@pytest.fixture(scope="module")
def answers(output: Path, finetuned: Path) -> dict[str, Answer]:
    places = {"demo/out/annotated": str(output), "demo/out/finetuned": str(finetuned)}

    def placed(query: str) -> str:
        return re.sub("|".join(places), lambda place: places[place[0]], query)

    return {question: duckdb.sql(placed(query)).fetchall() for question, query in QUERIES}


def of(answers: dict[str, Answer], part: str) -> Answer:
    (answer,) = (answer for question, answer in answers.items() if part in question)
    return answer


def test_there_are_thirteen_and_all_answer(answers: dict[str, Answer]) -> None:
    assert len(answers) == 13
    assert [question for question, answer in answers.items() if not answer] == []


def test_hours_by_label(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    expected: dict[str, list[Row]] = defaultdict(list)
    for row in fine.values():
        expected[row["label"]].append(row)
    for label, clips, hours, score in of(answers, "carries each label"):
        of_label = expected.pop(label)
        assert clips == len(of_label)
        assert hours * 3600 == pytest.approx(sum(row["duration_s"] for row in of_label))
        assert score == pytest.approx(np.mean([row["label_score"] for row in of_label]))
    assert not expected


def test_least_sure_words(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    words = [
        (word["confidence"], clip_id, word["start_s"], word["word"])
        for clip_id, row in fine.items()
        for word in row["words"]
    ]
    expected = [(clip, word, start, sure) for sure, clip, start, word in sorted(words)[:10]]
    assert of(answers, "least sure") == expected


def test_speakers_by_recording(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    found = {clip_id: (speakers, spoken) for clip_id, speakers, spoken, _ in of(answers, "How many speakers")}
    assert found.keys() == {clip_id for clip_id, row in fine.items() if row["segments"]}
    for clip_id, (speakers, spoken) in found.items():
        segments = fine[clip_id]["segments"]
        assert speakers == len({segment["speaker"] for segment in segments})
        assert spoken == pytest.approx(sum(s["end_s"] - s["start_s"] for s in segments), abs=1e-3)


def test_neighbours(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    vectors = {clip_id: np.array(row["embedding"]) for clip_id, row in fine.items() if row["embedding"]}
    pairs = sorted(
        (-float(vectors[one] @ vectors[other]), one, other)
        for one in vectors
        for other in vectors
        if one < other
    )
    assert [row[:2] for row in of(answers, "most alike")] == [(one, other) for _, one, other in pairs[:10]]
    given = "loose/podcast.mp3#podcast"
    nearest = sorted(
        (-float(vectors[given] @ v), clip_id) for clip_id, v in vectors.items() if clip_id != given
    )
    found = of(answers, "nearest to one given clip")
    assert [clip_id for clip_id, _ in found] == [clip_id for _, clip_id in nearest[:5]]
    assert [cosine for _, cosine in found] == pytest.approx([-c for c, _ in nearest[:5]], abs=1e-5)


def test_word_error_rate_by_speaker(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    of_speaker: dict[str | None, list[Row]] = defaultdict(list)
    for row in fine.values():
        if row["ref_text"]:
            of_speaker[row["speaker"]].append(row)
    found = of(answers, "word error rate")
    assert {speaker for speaker, _, _ in found} == of_speaker.keys()
    for speaker, clips, rate in found:
        told = of_speaker[speaker]
        assert clips == len(told)
        assert rate == pytest.approx(jiwer.wer([r["ref_text"] for r in told], [r["text"] for r in told]))


def test_errors_by_shard(answers: dict[str, Answer], rows: dict[str, Row]) -> None:
    (failed,) = (row for row in rows.values() if row["error"])
    shard, stage, code, clips, message = of(answers, "errors come from")[0]
    assert (shard, clips) == (failed["shard"], 1)
    assert {"stage": stage, "code": code, "message": message} == failed["error"]


def test_speech_and_overlap(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    found = {clip_id: (speech, overlap) for clip_id, _, speech, overlap in of(answers, "two people at once")}
    assert found.keys() == fine.keys()
    for clip_id, row in fine.items():
        active = np.array(row["frame_activity"])
        expected = ((active > 0).mean(), (active == 3).mean())
        assert found[clip_id] == pytest.approx(expected)


def test_who_says_what(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    for clip_id, speaker, start, says in of(answers, "Who says what"):
        (turn,) = (s for s in fine[clip_id]["segments"] if (s["speaker"], s["start_s"]) == (speaker, start))
        # In single precision, as the table has it: a middle may fall on an edge.
        middles = [
            ((np.float32(w["start_s"]) + np.float32(w["end_s"])) / np.float32(2), w["word"])
            for w in fine[clip_id]["words"]
        ]
        begin, end = np.float32(turn["start_s"]), np.float32(turn["end_s"])
        expected = [word for at, word in middles if begin <= at <= end]
        assert says.split() == expected


def test_pace_and_cost(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    for clip_id, count, pace in of(answers, "words a minute"):
        words = fine[clip_id]["words"]
        assert count == len(words)
        assert pace == pytest.approx(60 * count / (words[-1]["end_s"] - words[0]["start_s"]), rel=1e-4)
    total = sum(row["encoder_s"] for row in fine.values())
    dearest = sorted(fine, key=lambda clip_id: -fine[clip_id]["encoder_s"])[:10]
    found = of(answers, "What did it cost")
    assert [row[0] for row in found] == dearest
    assert found[0][4] == pytest.approx(fine[dearest[0]]["encoder_s"] / total, rel=1e-4)


def test_formats(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    found = of(answers, "formats and rates")
    assert sum(row[3] for row in found) == len(fine)
    assert {row[0] for row in found} >= {"parquet", "tar", "jsonl", "mp3", "ogg", "opus", "flac", "wav"}


def test_clips_that_are_never_learned(answers: dict[str, Answer], fine: dict[str, Row]) -> None:
    found = of(answers, "never learn")
    _, _, *wrong = sorted(fine)[:4]
    assert [row[0] for row in found[:2]] == wrong[::-1]
    assert [row[1] for row in found[:2]] == [4.0, 3.0]
    typical = np.median([4.0 / 4 + number / 1e3 for number in range(len(fine))])
    assert found[0][2] == pytest.approx(4.0 / typical, rel=0.01)
    assert found[2][2] < 1.5  # of the one forgotten once
    for clip_id, _, _, epochs, reference, text in found:
        assert (epochs, reference, text) == (5, fine[clip_id]["ref_text"], fine[clip_id]["text"])
