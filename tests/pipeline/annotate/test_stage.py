"""The actor code called directly: without Ray, and whatever the frame length of the checkpoint."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import transformers

from pipeline.errors import JobError
from pipeline.features.windows import WindowPlan
from tests.conftest import ROOT
from tests.jobs.peers import build, save
from tests.pipeline.annotate.features import annotator, feature_table, noise
from w2vbert.decoding.greedy import best_path, read_path
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.packing import Packed
from w2vbert.processor import Wav2Vec2BertProcessor

DEMO = ROOT / "demo"
WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
from pathlib import Path
import pipeline.corpus.parts
from tests.pipeline.annotate.features import SeamlessM4TFeatureExtractor, annotator, feature_table, noise

demo = Path("demo")
models = {"transcribe": demo / "checkpoint", "embed": demo / "embed"}
table = annotator(models)(feature_table(SeamlessM4TFeatureExtractor(), [noise(1), noise(2)]))
assert table["error"].null_count == table["embedding"].length() == 2
assert table["text"].null_count == table["embedding"].null_count == 0
"""


@pytest.mark.slow
def test_without_ray() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_RAY], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_passes_are_reported() -> None:
    reported: list[tuple[int, int]] = []
    stage = annotator({"transcribe": DEMO / "checkpoint", "classify": DEMO / "classify"}, token_budget=100)
    stage._report = lambda passes, frames: reported.append((passes, frames))
    table = feature_table(SeamlessM4TFeatureExtractor(), [noise(1), noise(1.5), noise(1)])
    stage(table)
    one, longer, other = table["frames"].to_pylist()
    assert reported == [(1, one + other), (1, longer)]  # one encoder for both


def test_a_clip_too_short_for_the_only_head_is_an_error() -> None:
    short = feature_table(SeamlessM4TFeatureExtractor(), [noise(0.1)])
    (error,) = annotator({"embed": DEMO / "embed"})(short)["error"].to_pylist()
    assert (error["stage"], error["code"]) == ("annotate", "too_short")
    assert error["message"].endswith("frames are too few for an x-vector")
    both = annotator({"embed": DEMO / "embed", "classify": DEMO / "classify"})(short)
    assert both["error"].null_count == both["embedding"].null_count == both["label"].length() == 1


@pytest.fixture(scope="module")
def fine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints with frames of 10 ms: nothing is stacked."""
    home = tmp_path_factory.mktemp("fine")
    models = {}
    for task in ("transcribe", "diarize"):
        models[task] = save(build(task, feature_projection_input_dim=80), home / task)
        transformers.SeamlessM4TFeatureExtractor(stride=1).save_pretrained(models[task])
    return models


def test_times_follow_the_frame_length_of_the_extractor(fine: dict[str, Path]) -> None:
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(fine["transcribe"])
    assert extractor.frame_s == 0.01
    table = feature_table(extractor, [noise(3)])
    (row,) = annotator(fine)(table).to_pylist()
    features = torch.from_numpy(
        np.frombuffer(table["features"][0].as_py(), np.float32).reshape(-1, 80).copy()
    )
    assert len(features) == 298

    model = Wav2Vec2BertForCTC.from_pretrained(fine["transcribe"]).eval()
    tokenizer = Wav2Vec2BertProcessor.from_pretrained(fine["transcribe"]).tokenizer
    with torch.inference_mode():
        encoding = model.wav2vec2_bert.encode(Packed(features, (len(features),)), num_valid=[len(features)])
        ids, posteriors = best_path(model.frame_logits(encoding).frames)
    expected = read_path(ids, posteriors, tokenizer)
    assert row["text"] == expected.text
    assert len(row["words"]) == len(expected.words) > 0
    for word, wanted in zip(row["words"], expected.words, strict=True):
        assert word["start_s"] == np.float32(wanted.start_frame * 0.01)
        assert word["end_s"] == np.float32(wanted.end_frame * 0.01)

    assert len(row["frame_activity"]) == len(features)
    turns = []
    for speaker in range(3):
        start = 0
        for active, run in groupby(value >> speaker & 1 for value in row["frame_activity"]):
            stop = start + len(list(run))
            turns += [(f"speaker_{speaker}", start, stop)] if active else []
            start = stop
    assert len(turns) > 2
    assert {(found["speaker"], found["start_s"], found["end_s"]) for found in row["segments"]} == {
        (speaker, np.float32(start * 0.01), np.float32(min(stop * 0.01, 3))) for speaker, start, stop in turns
    }


def test_windows_of_shorter_frames_are_stitched(fine: dict[str, Path]) -> None:
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(fine["transcribe"])
    table = feature_table(extractor, [noise(5)], WindowPlan(200, 40))
    (row,) = annotator(fine)(table).to_pylist()
    assert row["error"] is None
    assert len(row["frame_activity"]) == 498
    ends = [entry["end_s"] for entry in row["words"] + row["segments"]]
    assert 4 < max(ends) <= 5


def test_another_sampling_rate_is_refused(fine: dict[str, Path], tmp_path: Path) -> None:
    slow = save(build("classify", feature_projection_input_dim=160), tmp_path / "slow")
    transformers.SeamlessM4TFeatureExtractor(sampling_rate=8000).save_pretrained(slow)
    with pytest.raises(JobError) as caught:
        annotator({"classify": slow})
    assert str(caught.value) == (
        f"--classify {slow}: its features are those of audio at 8,000 Hz (preprocessor_config.json), and "
        "every clip is decoded to 16,000 Hz."
    )


def test_frame_lengths_do_not_mix(fine: dict[str, Path]) -> None:
    with pytest.raises(JobError, match="its features are computed otherwise than those of"):
        annotator({"transcribe": fine["transcribe"], "classify": DEMO / "classify"})


def test_silence_and_errors_pass_through() -> None:
    table = feature_table(SeamlessM4TFeatureExtractor(), [noise(1), noise(1)])
    index = table.schema.get_field_index("windows")
    field = table.schema.field(index)
    silent = table.set_column(index, field, pa.array([[], []], field.type))
    found = annotator({"classify": DEMO / "classify", "transcribe": DEMO / "checkpoint"})(silent)
    assert pc.all(pc.equal(found["text"], "")).as_py()
    assert found["label"].null_count == 2
    assert found["encoder_s"].to_pylist() == [0, 0]
