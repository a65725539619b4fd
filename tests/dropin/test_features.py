"""Code written for the published feature extractor: what it pads, what it is told, its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BatchFeature as PeerBatch
from transformers import SeamlessM4TFeatureExtractor as Peer

from w2vbert import SeamlessM4TFeatureExtractor
from w2vbert.features.batch import BatchFeature

OPTIONS = {"feature_size": 10, "num_mel_bins": 10, "padding_value": 1.0, "do_normalize": True}
OURS, PEER = SeamlessM4TFeatureExtractor(**OPTIONS), Peer(**OPTIONS)
CLIPS = [np.random.default_rng(frames).random((frames, 10)) for frames in (4, 7, 6)]


def assert_equal(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert type(found[name]) is type(value)
        assert found[name].dtype == value.dtype
        for mine, its in zip(found[name], value, strict=True):
            np.testing.assert_array_equal(mine, its)
            if value.dtype == object:
                assert mine.dtype == its.dtype


@pytest.mark.parametrize("kind", [lambda clip: clip.tolist(), np.asarray, torch.from_numpy])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_tensors": "pt", "pad_to_multiple_of": 4},
        {"padding": "max_length", "max_length": 6, "truncation": True, "return_tensors": "np"},
        {"return_attention_mask": False},
    ],
)
def test_pad_double_precision(kind: Any, options: dict[str, Any]) -> None:
    """Features of a list are float64, which no model reads."""
    rows = [{"input_features": kind(clip), "labels": index} for index, clip in enumerate(CLIPS)]
    assert_equal(OURS.pad(rows, **options), PEER.pad(rows, **options))


@pytest.mark.parametrize("tensors", [None, "np"])
@pytest.mark.parametrize("options", [{"padding": False}, {"padding": "max_length", "max_length": 6}])
def test_pad_leaves_lengths(tensors: str | None, options: dict[str, Any]) -> None:
    found, expected = (
        extractor.pad({"input_features": [*CLIPS]}, return_tensors=tensors, **options)
        for extractor in (OURS, PEER)
    )
    assert expected["input_features"].dtype == object
    assert_equal(found, expected)
    with pytest.raises(ValueError, match="different lengths"):
        OURS.pad({"input_features": CLIPS}, return_tensors="pt", **options)


def test_pad_of_nothing() -> None:
    assert dict(OURS.pad({"input_features": []})) == dict(PEER.pad({"input_features": []}))
    with pytest.raises(ValueError, match="no input_features were given, only labels"):
        OURS.pad([{"labels": 1}])


def test_without_a_sampling_rate(caplog: pytest.LogCaptureFixture) -> None:
    waveform = np.random.default_rng(0).random(4000).astype(np.float32)
    found, expected = OURS(waveform), PEER(waveform)
    np.testing.assert_allclose(found.input_features, expected.input_features, atol=2e-5)
    np.testing.assert_array_equal(found.attention_mask, expected.attention_mask)
    assert "taken to be 16000 Hz" in caplog.text
    with pytest.raises(ValueError, match="8000 Hz: resample it"):
        OURS(waveform, sampling_rate=8000)


def test_batches_are_made_as_published() -> None:
    for kind in (BatchFeature, PeerBatch):
        batch = kind({"a": CLIPS[:1]}, tensor_type="pt")
        assert torch.equal(batch["a"], torch.from_numpy(CLIPS[0])[None])
        assert kind({"a": [[1], [2, 3]]}, tensor_type="np")["a"].dtype == object


def test_files_of_ours_and_theirs(tmp_path: Path) -> None:
    assert OURS.do_normalize is PEER.do_normalize is True
    with pytest.raises(AttributeError, match="no attribute 'do_resample'"):
        _ = OURS.do_resample
    OURS.to_json_file(tmp_path / "ours.json")
    PEER.to_json_file(tmp_path / "peer.json")
    written = [json.loads((tmp_path / name).read_text()) for name in ("ours.json", "peer.json")]
    assert written[0] == written[1] == OURS.to_dict() == json.loads(OURS.to_json_string())
    for kind in (SeamlessM4TFeatureExtractor, Peer):
        assert kind.from_json_file(tmp_path / "ours.json").to_dict() == PEER.to_dict()
    assert OURS.model_input_names == PEER.model_input_names


@pytest.mark.parametrize("rate", [16000, 8000])
def test_filters_and_window(rate: int) -> None:
    ours, peer = (kind(num_mel_bins=40, sampling_rate=rate) for kind in (SeamlessM4TFeatureExtractor, Peer))
    np.testing.assert_allclose(ours.mel_filters, peer.mel_filters, atol=1e-12)
    np.testing.assert_allclose(ours.window, peer.window, atol=1e-12)
    assert ours.feature_extractor_type == peer.to_dict()["feature_extractor_type"]


def test_arguments_of_saving_and_loading(tmp_path: Path) -> None:
    folder = tmp_path / "nested"
    OURS.save_pretrained(folder, token=None, safe_serialization=True, variant=None)
    for kind in (SeamlessM4TFeatureExtractor, Peer):
        extractor, unused = kind.from_pretrained(
            tmp_path, subfolder="nested", padding_value=2.0, colour="red", return_unused_kwargs=True
        )
        assert extractor.padding_value == 2.0
        assert unused == {"colour": "red"}
    again = SeamlessM4TFeatureExtractor.from_pretrained(folder, trust_remote_code=False, variant=None)
    assert again.to_dict() == OURS.to_dict()
    with pytest.raises(TypeError, match=r"from_pretrained\(device_map='auto'\): that is for models"):
        SeamlessM4TFeatureExtractor.from_pretrained(folder, device_map="auto")
    with pytest.raises(TypeError, match=r"save_pretrained\(max_shard_size='1GB'\): that is for models"):
        OURS.save_pretrained(folder, max_shard_size="1GB")
    with pytest.raises(TypeError, match="unexpected keyword argument 'prefix'"):
        OURS.save_pretrained(folder, prefix="x")


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_zero_mean_unit_variance(kind: Any) -> None:
    values = [kind([1.0, 2.0, 4.0, 9.0]), kind([5.0, 1.0, 7.0, 7.0])]
    for mask in (None, [[1, 1, 1, 1], [1, 1, 0, 0]]):
        found = OURS.zero_mean_unit_var_norm(values, mask, 3.0)
        expected = PEER.zero_mean_unit_var_norm(values, mask, 3.0)
        for mine, its in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, its)
