"""The peer's pipelines with our model say what they say with the peer's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import transformers

import w2vbert
from tests.conftest import ROOT
from tests.dropin.models import twins

pytestmark = pytest.mark.slow

CHECKPOINT = ROOT / "demo" / "checkpoint"


def recordings() -> list[np.ndarray]:
    """The demo's clips, at 16 kHz."""
    read = [
        soundfile.read(ROOT / "demo" / "audio" / f"clip-{number}.flac", dtype="float32")
        for number in range(3)
    ]
    return [
        torchaudio.functional.resample(torch.from_numpy(samples), rate, 16000).numpy()
        for samples, rate in read
    ]


@pytest.mark.parametrize(
    "options", [{}, {"chunk_length_s": 2, "stride_length_s": 0.5}, {"return_timestamps": "word"}]
)
def test_speech_recognition(options: dict[str, Any]) -> None:
    models = (
        w2vbert.Wav2Vec2BertForCTC.from_pretrained(CHECKPOINT),
        transformers.Wav2Vec2BertForCTC.from_pretrained(CHECKPOINT),
    )
    mine, its = (
        transformers.pipeline(
            "automatic-speech-recognition",
            model=model,
            feature_extractor=transformers.SeamlessM4TFeatureExtractor.from_pretrained(CHECKPOINT),
            tokenizer=transformers.Wav2Vec2CTCTokenizer.from_pretrained(CHECKPOINT),
        )(recordings(), **options)
        for model in models
    )
    assert mine == its
    assert all(answer["text"] for answer in mine)


def test_audio_classification() -> None:
    names = {0: "no", 1: "yes", 2: "maybe"}
    models = twins(
        w2vbert.Wav2Vec2BertForSequenceClassification, feature_projection_input_dim=160, id2label=names
    )
    mine, its = (
        transformers.pipeline(
            "audio-classification",
            model=model,
            feature_extractor=transformers.SeamlessM4TFeatureExtractor(),
        )(recordings(), top_k=3)
        for model in models
    )
    for answers, expected in zip(mine, its, strict=True):
        assert [answer["label"] for answer in answers] == [answer["label"] for answer in expected]
        scores = [[answer["score"] for answer in side] for side in (answers, expected)]
        np.testing.assert_allclose(*scores, atol=1e-5)
