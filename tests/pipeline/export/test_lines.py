"""RTTM, CTM and JSONL, read back by other readers where there are some."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyannote.core import Segment
from pyannote.database.util import load_rttm

from pipeline.clip_names import encode_field
from pipeline.export.job import export, format_summary
from pipeline.export.spec import ExportSpec
from tests.pipeline.export.tables import ROWS, UNDECODABLE, Run, clip, turns, words, write


def test_rttm(run: Run) -> None:
    assert run.text("rttm") == (
        "SPEAKER a%20b.tar#Hello 1 0.000 1.500 <NA> <NA> speaker_0 <NA> <NA>\n"
        "SPEAKER a%20b.tar#Hello 1 1.000 1.500 <NA> <NA> speaker_1 <NA> <NA>\n"
        "SPEAKER b.tar#long 1 0.000 4.000 <NA> <NA> speaker_0 <NA> <NA>\n"
    )


def test_rttm_is_read_by_pyannote(run: Run) -> None:
    run("rttm", "out.rttm")
    loaded = load_rttm(str(run.folder / "out.rttm"))
    assert {
        uri: sorted(
            (turn.start, turn.end, label) for turn, _, label in annotation.itertracks(yield_label=True)
        )
        for uri, annotation in loaded.items()
    } == {
        "a%20b.tar#Hello": [(0.0, 1.5, "speaker_0"), (1.0, 2.5, "speaker_1")],
        "b.tar#long": [(0.0, 4.0, "speaker_0")],
    }


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map("x#".__add__),
            st.lists(
                st.tuples(st.integers(0, 10**7), st.integers(1, 10**5)), min_size=1, max_size=5, unique=True
            ),
        ),
        min_size=1,
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_rttm_of_any_name_and_time(tmp_path: Path, clips: list[tuple[str, list[tuple[int, int]]]]) -> None:
    rows = [
        clip(name, 1.0, segments=turns(*(("s p", a * 0.001, (a + n) * 0.001) for a, n in spans)))
        for name, spans in clips
    ]
    table = write(tmp_path / "any", rows)
    export(ExportSpec(table=str(table), format="rttm", output=str(tmp_path / "any.rttm"), overwrite=True))
    loaded = load_rttm(str(tmp_path / "any.rttm"))
    assert set(loaded) == {encode_field(name) for name, _ in clips}
    for name, spans in clips:
        annotation = loaded[encode_field(name)]
        assert annotation.labels() == ["s%20p"]
        # The table's seconds are single-precision: a millisecond at most at the end of ten thousand seconds.
        for a, n in spans:
            wanted = Segment(a / 1000, (a + n) / 1000)
            assert any(
                abs(turn.start - wanted.start) <= 0.0011 and abs(turn.end - wanted.end) <= 0.0021
                for turn in annotation.itersegments()
            )


def test_ctm(run: Run) -> None:
    assert run.text("ctm") == (
        "a%20b.tar#Hello 1 0.020 0.400 hello 0.900\n"
        "a%20b.tar#Hello 1 0.500 0.480 world 0.900\n"
        "b.tar#long 1 0.100 0.300 one 0.900\n"
        "b.tar#long 1 1.500 0.400 two 0.900\n"
        "b.tar#long 1 2.000 0.500 three 0.900\n"
    )


def test_ctm_of_the_reference(run: Run) -> None:
    assert run.text("ctm", reference=True) == (
        "a%20b.tar#Hello 1 0.000 0.400 hallo NA\na%20b.tar#Hello 1 0.480 0.520 world NA\n"
    )


def test_ctm_per_clip(run: Run) -> None:
    files = run.files("ctm")
    assert sorted(files) == ["a b.tar/Hello.ctm", "b.tar/long.ctm", "b.tar/silent.ctm"]
    assert files["b.tar/silent.ctm"] == ""
    assert files["a b.tar/Hello.ctm"].count("\n") == 2


def test_jsonl(run: Run) -> None:
    lines = [json.loads(line) for line in run.text("jsonl").splitlines()]
    assert lines[0] == {
        "clip_id": "a b.tar#Hello",
        "shard": "/in/a b.tar",
        "duration": 2.5004,
        "ref_text": "hallo world",
        "language": "en",
        "ref_duration": 9.0,
        "extra": {"id": 7},
        "text": "hello world",
        "text_confidence": 0.9,
        "words": words(("hello", 0.02, 0.42), ("world", 0.5, 0.98)),
        "aligned_words": [
            {"word": "hallo", "start_s": 0.0, "end_s": 0.4, "confidence": None},
            {"word": "world", "start_s": 0.48, "end_s": 1.0, "confidence": None},
        ],
        "alignment_score": -0.25,
        "label": "en",
        "label_score": 0.75,
        "labels": [{"label": "en", "score": 0.75}, {"label": "de", "score": 0.25}],
        "segments": turns(("speaker_0", 0.0, 1.5), ("speaker_1", 1.0, 2.5)),
        "encoder_s": 0.01,
    }
    assert lines[1] == {"clip_id": "a b.tar#broken", "shard": "/in/a b.tar", "error": UNDECODABLE}
    assert [line["clip_id"] for line in lines] == [row["clip_id"] for row in ROWS]


def test_jsonl_says_how_many_failed(run: Run) -> None:
    done = run("jsonl")
    assert (done.clips, done.failed, done.left_out.total()) == (5, 1, 0)
    assert format_summary(done).startswith("clips       5 written (1 of them with an error)\n")


def test_jsonl_with_embeddings(run: Run) -> None:
    first = json.loads(run.text("jsonl", embeddings=True).splitlines()[0])
    assert (first["embedding"], first["embedding_norm"]) == ([0.6, 0.0, 0.8], 12.5)
    assert "frame_activity" not in first


def test_jsonl_of_the_reference(run: Run) -> None:
    first = json.loads(run.text("jsonl", reference=True).splitlines()[0])
    assert (first["text"], first["pred_text"]) == ("hallo world", "hello world")
    assert first["words"][0] == {"word": "hallo", "start_s": 0.0, "end_s": 0.4, "confidence": None}
    assert first["pred_words"][0]["word"] == "hello"
    assert not first.keys() & {"ref_text", "aligned_words"}


def test_jsonl_per_clip_has_the_error_rows_too(run: Run) -> None:
    files = run.files("jsonl")
    assert sorted(files) == [
        "a b.tar/Hello.jsonl",
        "a b.tar/broken.jsonl",
        "a b.tar/hello~2.jsonl",
        "b.tar/long.jsonl",
        "b.tar/silent.jsonl",
    ]
    assert json.loads(files["a b.tar/broken.jsonl"])["error"] == UNDECODABLE
