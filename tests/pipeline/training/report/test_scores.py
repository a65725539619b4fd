"""The metrics of each task on cases small enough to count by hand."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from pipeline.errors import JobError
from pipeline.metrics.rttm import Segment
from pipeline.training.report import scores
from pipeline.training.report.scores import (
    Scored,
    higher_is_better,
    main_metric,
    means,
    metrics_of,
    require_packages,
)


def scored(reference: Any, values: dict[str, Any], clip_id: str = "c") -> Scored:
    return Scored(clip_id, reference, values, 10.0)


def test_transcripts() -> None:
    clips = [
        scored("one two three", {"text": "one three three four"}),  # one wrong, one inserted
        scored("five six", {"text": "five"}),  # one missing, one word of two
        scored("seven", {"text": "seven"}),  # one word of one
        scored("eight nine", {"text": ""}),  # two missing
        scored("  ", {"text": "zero"}),  # nothing to count against
    ]
    metrics = metrics_of("transcribe", clips)
    assert metrics["wer"] == pytest.approx(5 / 8)
    assert metrics["blank_only"] == 1 / 4
    assert metrics["one_word"] == 1 / 3
    assert metrics["failed"] == 0


def test_a_clip_of_which_nothing_is_said_is_wrong() -> None:
    assert metrics_of("transcribe", [scored("one two", {})]) == {
        "wer": 1.0,
        "cer": 1.0,
        "blank_only": 1.0,
        "one_word": 0.0,
        "failed": 1.0,
    }
    assert metrics_of("classify", [scored("a", {})]) == {"accuracy": 0.0, "macro_f1": 0.0, "failed": 1.0}


def test_labels() -> None:
    clips = [scored("a", {"label": "a"}), scored("a", {"label": "b"}), scored("b", {"label": "b"})]
    assert metrics_of("classify", clips) == {
        "accuracy": pytest.approx(2 / 3),
        "macro_f1": pytest.approx(2 / 3),
        "failed": 0.0,
    }


def test_speakers() -> None:
    """10 s of speech; of the second speaker's 4 s the first has 1 s, and 0.5 s are too many at the end."""
    reference = [Segment("a", 0, 6), Segment("b", 6, 10)]
    output = [
        {"speaker": "speaker_1", "start_s": 0.0, "end_s": 7.0},
        {"speaker": "speaker_0", "start_s": 7.0, "end_s": 9.0},
    ]
    metrics = metrics_of("diarize", [Scored("c", reference, {"segments": output}, 12.0)])
    assert metrics == {
        "der": pytest.approx(0.2),
        "missed": pytest.approx(0.1),
        "false_alarm": pytest.approx(0.0),
        "confusion": pytest.approx(0.1),
        "failed": 0.0,
    }


def test_clips_without_speech_alone_have_no_rate() -> None:
    assert metrics_of("diarize", [scored([], {"segments": []})]) == {"failed": 0.0}


def vector(angle: float) -> np.ndarray:
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def test_voices() -> None:
    apart = [(0, 0.0), (0, 0.1), (1, 2.0), (1, 2.1)]
    clips = [
        scored(speaker, {"embedding": vector(angle)}, f"c{n}") for n, (speaker, angle) in enumerate(apart)
    ]
    assert metrics_of("embed", clips)["eer"] == 0.0
    # Two pairs of one voice (cosines of 1.5 and 0.1), four of two (0.5, 0.6, 1.0, 0.9): half are wrong.
    mixed = [(0, 0.0), (0, 1.5), (1, 0.5), (1, 0.6)]
    clips = [
        scored(speaker, {"embedding": vector(angle)}, f"c{n}") for n, (speaker, angle) in enumerate(mixed)
    ]
    assert metrics_of("embed", clips)["eer"] == pytest.approx(0.5)


def test_voices_of_one_speaker_alone_have_no_rate() -> None:
    clips = [scored(0, {"embedding": vector(0)}), scored(0, {"embedding": vector(1)}), scored(1, {})]
    assert metrics_of("embed", clips) == {"failed": pytest.approx(1 / 3)}


def test_many_voices_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clips whose speakers come one after the other, the thinned ones still have all speakers."""
    monkeypatch.setattr(scores, "MOST_VOICES", 20)
    clips = [
        scored(number // 10, {"embedding": vector(number // 10)}, f"c{number:03}") for number in range(60)
    ]
    assert metrics_of("embed", clips)["eer"] == 0.0
    monkeypatch.setattr(scores, "MOST_VOICES", 2)  # the first and the last: never one voice
    assert "eer" not in metrics_of("embed", clips)


def test_tasks_of_others_have_no_metrics() -> None:
    assert metrics_of("loudness", [scored(1, {})]) == {}
    assert metrics_of("classify", []) == {}


def test_what_decides() -> None:
    names = ["transcribe", "classify", "diarize", "embed", "masked-prediction"]
    assert [main_metric(name) for name in names] == [
        "transcribe/wer",
        "classify/accuracy",
        "diarize/der",
        "embed/eer",
        "masked-prediction/loss",
    ]
    assert [higher_is_better(main_metric(name)) for name in names] == [False, True, False, False, False]


def test_means() -> None:
    facts = {"transcribe/zeroed": 3.0, "transcribe/blank": 4.5, "masked-prediction/correct": 20.0}
    assert means(facts, {"transcribe": 5.0, "masked-prediction": 80.0}) == {
        "transcribe/zeroed": 3.0,
        "transcribe/blank": 0.9,
        "masked-prediction/accuracy": 0.25,
    }
    assert means({"transcribe/blank": 0.0}, {"transcribe": 0.0}) == {}


def test_a_missing_package_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    require_packages(["transcribe", "classify", "diarize", "embed", "masked-prediction"])
    real = scores.find_spec
    monkeypatch.setattr(scores, "find_spec", lambda name: None if "pyannote" in name else real(name))
    require_packages(["embed"])
    with pytest.raises(JobError, match=r"--task diarize.*pip install 'w2vbert\[diarization\]'"):
        require_packages(["diarize"])
    assert "sklearn" in sys.modules or scores.find_spec("sklearn")
