"""The feature extractor by itself: what audio it takes, what it refuses, what its files look like."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from w2vbert.features.batch import BatchFeature
from w2vbert.features.extractor import AudioTooShortError, SeamlessM4TFeatureExtractor
from w2vbert.features.fbank import Fbank, FbankStream, normalize
from w2vbert.pretrained.hub import CheckpointNotFoundError

EXTRACTOR = SeamlessM4TFeatureExtractor()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


# Kaldi's own numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fbank"),
    [
        ("001", Fbank(num_mel_bins=23, high_frequency=7600.0)),
        ("030", Fbank(num_mel_bins=30, high_frequency=7600.0, frame_length=512, frame_shift=256)),
    ],
)
def test_kaldi_reference(shared_data: Path, name: str, fbank: Fbank) -> None:
    """010 is left out: it was made with --snip-edges=false, where frames reach beyond the recording."""
    folder = shared_data / "kaldi_fbank"
    waveform, _ = soundfile.read(folder / "librispeech_2_trimmed.wav", dtype="float32")
    lines = (folder / f"{name}.ark.txt").read_text().splitlines()[1:]
    expected = np.array([line.rstrip("]").split() for line in lines], np.float32)
    np.testing.assert_allclose(fbank(waveform).T, expected, atol=2e-3)


# Blocks --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=8), st.integers(0, 1000))
def test_stream_equals_one_piece(lengths: list[int], seed: int) -> None:
    waveform = noise(sum(lengths) + 4000, seed)
    blocks = np.split(waveform, np.cumsum(lengths))
    stream = FbankStream()
    energies = np.concatenate([stream.add(block) for block in blocks], axis=1)
    whole = Fbank()(waveform)
    np.testing.assert_allclose(energies, whole, atol=2e-6)
    normalized = stream.finish().normalize(energies)
    np.testing.assert_allclose(normalized, normalize(whole.astype(np.float64)), atol=1e-5)
    # In one piece the statistics are those of the published extractor, in single precision.
    np.testing.assert_allclose(normalized, normalize(whole), atol=5e-5)


def test_stream_of_silence() -> None:
    stream = FbankStream()
    energies = stream.add(np.zeros(15000, np.float32))
    assert not stream.finish().normalize(energies).any()


def test_stream_needs_two_frames() -> None:
    stream = FbankStream()
    stream.add(noise(400))
    with pytest.raises(ValueError, match="two frames"):
        stream.finish()


# Lengths -------------------------------------------------------------------------------------------


@given(st.integers(560, 3000))
@settings(max_examples=25, deadline=None)
def test_frames_are_counted(samples: int) -> None:
    features = EXTRACTOR.extract(noise(samples, samples))
    assert features.shape == (EXTRACTOR.num_frames(samples), 160)
    assert features.dtype == np.float32
    assert len(features) == (1 + (samples - 400) // 160) // 2


def test_normalised() -> None:
    energies = normalize(EXTRACTOR.fbank(noise(16000)))
    np.testing.assert_allclose(energies.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(energies.std(1, ddof=1), 1, atol=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 559])
def test_too_short(samples: int) -> None:
    """The peer gives nothing under 400 samples and NaN under 560: one frame has no variance."""
    with pytest.raises(AudioTooShortError, match=r"needs 560 samples \(0.035 s\)"):
        EXTRACTOR.extract(noise(samples))
    with pytest.raises(AudioTooShortError, match=rf"^{samples} samples"):
        EXTRACTOR(noise(samples), sampling_rate=16000)
    with pytest.raises(AudioTooShortError, match="clip 1 of 2"):
        EXTRACTOR([noise(800), noise(samples)], sampling_rate=16000)


def test_shortest() -> None:
    features = EXTRACTOR.extract(noise(560))
    assert features.shape == (1, 160)
    # Two values of zero mean and unit variance are +-1 / sqrt(2).
    np.testing.assert_allclose(np.abs(features), np.sqrt(0.5), atol=1e-4)


def test_odd_frames_are_masked_out() -> None:
    batch = EXTRACTOR(noise(720), sampling_rate=16000)
    assert batch["attention_mask"].tolist() == [[1, 0]]
    assert batch["input_features"].shape == (1, 2, 160)
    assert EXTRACTOR.extract(noise(720)).shape == (1, 160)
    partial = EXTRACTOR.extract(noise(720), keep_partial=True)
    np.testing.assert_array_equal(partial, batch["input_features"][0])
    assert partial.shape == (EXTRACTOR.num_frames(720, keep_partial=True), 160) == (2, 160)
    assert not partial[1, 80:].any()
    assert EXTRACTOR.extract(noise(560), keep_partial=True).shape == (1, 160)


@pytest.mark.parametrize("stride", [1, 3])
def test_other_strides(stride: int) -> None:
    """A stacked frame counts when all of its frames do; the published rule is made for two."""
    extractor = SeamlessM4TFeatureExtractor(stride=stride)
    clips = [noise(2000), noise(1500, 1)]
    batch = extractor(clips, sampling_rate=16000, pad_to_multiple_of=stride)
    for features, mask, clip in zip(batch.input_features, batch.attention_mask, clips, strict=True):
        np.testing.assert_array_equal(features[mask.astype(bool)], extractor.extract(clip))


# What counts as audio ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.int16, 2**15), (np.int32, 2**31), (np.float64, 1), (np.float32, 1)]
)
def test_sample_types(dtype: type, scale: int) -> None:
    """The peer multiplies int16 by 2**15 in int16."""
    waveform = np.round(noise(4000) * 2**15) / 2**15
    given_samples = (waveform * scale).astype(dtype)
    expected = EXTRACTOR.extract(waveform.astype(np.float32))
    np.testing.assert_array_equal(EXTRACTOR.extract(given_samples), expected)
    np.testing.assert_array_equal(EXTRACTOR.extract(torch.from_numpy(given_samples)), expected)
    batch = EXTRACTOR(given_samples, sampling_rate=16000)
    np.testing.assert_array_equal(batch.input_features[0, : len(expected)], expected)


def test_half_precision_tensor() -> None:
    waveform = torch.from_numpy(noise(4000)).half()
    np.testing.assert_array_equal(EXTRACTOR.extract(waveform), EXTRACTOR.extract(waveform.float()))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_])
def test_types_without_a_scale(dtype: type) -> None:
    with pytest.raises(TypeError, match="no agreed full scale"):
        EXTRACTOR.extract(np.ones(1000, dtype))


def test_two_dimensions_are_a_batch() -> None:
    """Of a torch tensor the peer returns the first clip alone."""
    clips = np.stack([noise(2000, seed) for seed in range(3)])
    expected = EXTRACTOR(list(clips), sampling_rate=16000)
    assert expected.input_features.shape == (3, 6, 160)
    for batch in (clips, torch.from_numpy(clips), clips.tolist(), tuple(clips)):
        found = EXTRACTOR(batch, sampling_rate=16000)
        np.testing.assert_array_equal(found.input_features, expected.input_features)
        np.testing.assert_array_equal(found.attention_mask, expected.attention_mask)


def test_channels_are_chosen() -> None:
    """The peer takes the left channel of (channels, samples) and says nothing."""
    stereo = np.stack([noise(2000, 1), noise(2000, 2)])
    with pytest.raises(ValueError, match=r"2 channels: choose channel='mean', 'left'"):
        EXTRACTOR.extract(stereo)
    with pytest.raises(ValueError, match=r"clip 0 of 2: .*2 channels"):
        EXTRACTOR([stereo, stereo], sampling_rate=16000)
    for channel, waveform in (("left", stereo[0]), (0, stereo[0]), (1, stereo[1]), ("mean", stereo.mean(0))):
        expected = EXTRACTOR.extract(waveform)
        for layout in (stereo, stereo.T):  # soundfile gives (samples, channels)
            np.testing.assert_array_equal(EXTRACTOR.extract(layout, channel=channel), expected)
        for batch in ([stereo], stereo[None], stereo.T[None], stereo.T, torch.from_numpy(stereo.T)):
            found = EXTRACTOR(batch, sampling_rate=16000, channel=channel).input_features
            assert found.shape[0] == 1
            np.testing.assert_array_equal(found[0, : len(expected)], expected)
    for channel in (2, -1, "right"):
        with pytest.raises(ValueError, match="index below 2"):
            EXTRACTOR.extract(stereo, channel=channel)


def test_mean_of_integer_channels() -> None:
    stereo = np.full((2, 2000), 2**15 - 1, np.int16) * np.sign(noise(2000)).astype(np.int16)
    np.testing.assert_array_equal(EXTRACTOR.extract(stereo, channel="mean"), EXTRACTOR.extract(stereo[0]))


def test_one_channel_needs_no_choice() -> None:
    waveform = noise(2000)
    for layout in (waveform[None], waveform[:, None]):
        np.testing.assert_array_equal(EXTRACTOR.extract(layout), EXTRACTOR.extract(waveform))


@pytest.mark.parametrize("audio", [noise(8000).reshape(2, 2, 2000), "clip.wav", None])
def test_not_a_waveform(audio: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"a clip has the shape|must be numbers"):
        EXTRACTOR.extract(audio)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value: float) -> None:
    waveform = noise(4000)
    waveform[1234] = value
    with pytest.raises(ValueError, match="not finite"):
        EXTRACTOR.extract(waveform)


def test_sampling_rate_should_be_said(caplog: pytest.LogCaptureFixture) -> None:
    expected = EXTRACTOR(noise(4000), sampling_rate=16000)
    assert caplog.messages == []
    np.testing.assert_array_equal(EXTRACTOR(noise(4000)).input_features, expected.input_features)
    assert ["taken to be 16000 Hz" in message for message in caplog.messages] == [True]
    with pytest.raises(ValueError, match="this has 8000 Hz: resample it"):
        EXTRACTOR(noise(4000), sampling_rate=8000)


# Padding -------------------------------------------------------------------------------------------


def test_pad_collates() -> None:
    clips = [{"input_features": torch.ones(n, 160), "name": str(n)} for n in (3, 5)]
    batch = EXTRACTOR.pad(clips, pad_to_multiple_of=4)
    assert batch.input_features.shape == (2, 8, 160)
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0, 0]]
    assert batch.input_features.sum(-1).tolist() == (batch.attention_mask * 160).tolist()
    assert batch.name == ["3", "5"]


def test_padding_is_checked() -> None:
    clips = [noise(2000), noise(4000)]
    with pytest.raises(ValueError, match="different lengths make no tensor"):
        EXTRACTOR(clips, sampling_rate=16000, padding=False)
    with pytest.raises(ValueError, match="needs max_length"):
        EXTRACTOR(clips, sampling_rate=16000, padding="max_length")
    with pytest.raises(ValueError, match="truncation=True needs max_length"):
        EXTRACTOR(clips, sampling_rate=16000, truncation=True)
    with pytest.raises(ValueError, match="padding must be"):
        EXTRACTOR(clips, sampling_rate=16000, padding="shortest")
    with pytest.raises(ValueError, match="nothing to pad"):
        EXTRACTOR.pad([])


def test_batch_feature() -> None:
    batch = EXTRACTOR(noise(2000), sampling_rate=16000, return_tensors="pt")
    assert batch.to(torch.float16) is batch
    assert batch.input_features.dtype == torch.float16
    assert batch.attention_mask.dtype == torch.int32
    assert batch.to("meta").attention_mask.device.type == "meta"
    assert list({**BatchFeature({"a": 1})}) == ["a"]
    with pytest.raises(AttributeError, match="no 'logits' here, only input_features"):
        _ = batch.logits
    again = pickle.loads(pickle.dumps(BatchFeature({"a": 1})))
    assert again.a == 1


# Files ---------------------------------------------------------------------------------------------


def test_both_layouts_load(tmp_path: Path) -> None:
    config = {"num_mel_bins": 40, "feature_size": 40, "padding_value": 1.5, "house_rule": [1, 2]}
    for folder, name, content in (
        ("four", "preprocessor_config.json", config),
        ("five", "processor_config.json", {"feature_extractor": config, "processor_class": "any"}),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(json.dumps(content))
        extractor = SeamlessM4TFeatureExtractor.from_pretrained(tmp_path / folder, padding_side="left")
        assert extractor.num_mel_bins == 40
        assert extractor.padding_value == 1.5
        assert extractor.padding_side == "left"
        assert extractor.extract(noise(2000)).shape == (5, 80)
        extractor.save_pretrained(tmp_path / folder / "saved")
        saved = json.loads((tmp_path / folder / "saved" / "preprocessor_config.json").read_text())
        assert saved.items() >= {**config, "padding_side": "left", "sampling_rate": 16000}.items()


def test_processor_config_without_features(tmp_path: Path) -> None:
    """transformers 4 wrote both files, and only the older one held the features."""
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Wav2Vec2BertProcessor"}')
    with pytest.raises(CheckpointNotFoundError, match="has no feature extractor"):
        SeamlessM4TFeatureExtractor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"padding_value": 2.0}')
    assert SeamlessM4TFeatureExtractor.from_pretrained(tmp_path).padding_value == 2.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("stride", 0), ("num_mel_bins", -1), ("sampling_rate", 16000.5), ("padding_side", "both")],
)
def test_impossible_values(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SeamlessM4TFeatureExtractor(**{field: value})


def test_another_extractor(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "WhisperFeatureExtractor"}'
    )
    with pytest.raises(ValueError, match=r"preprocessor_config\.json: .*WhisperFeatureExtractor"):
        SeamlessM4TFeatureExtractor.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "frame_s"), [({}, 0.02), ({"stride": 1}, 0.01), ({"sampling_rate": 8000, "stride": 3}, 0.06)]
)
def test_seconds_from_one_frame_to_the_next(options: dict[str, int], frame_s: float) -> None:
    extractor = SeamlessM4TFeatureExtractor(**options)
    assert extractor.frame_s == frame_s
    assert extractor.seconds(150) == pytest.approx(150 * frame_s)
