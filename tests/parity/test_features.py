"""Features equal to the published extractor's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SeamlessM4TFeatureExtractor as Peer

from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

OURS = SeamlessM4TFeatureExtractor()
PEER = Peer()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def assert_same(ours: dict, peer: dict, atol: float = 2e-6) -> None:
    """Rounding of a spectrum to single precision may fall the other way; nothing else differs."""
    assert set(ours) == set(peer)
    for key in peer:
        assert type(ours[key]) is type(peer[key])
        assert ours[key].dtype == peer[key].dtype
        np.testing.assert_allclose(ours[key], peer[key], atol=atol)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(560, 6000), min_size=1, max_size=4),
    st.fixed_dictionaries(
        {
            "padding": st.sampled_from([True, "longest", "max_length"]),
            "pad_to_multiple_of": st.sampled_from([None, 1, 2, 3, 8]),
            "max_length": st.integers(1, 40),
            "truncation": st.just(True),
            "return_tensors": st.sampled_from([None, "np", "pt"]),
            "return_attention_mask": st.sampled_from([None, True, False]),
            "do_normalize_per_mel_bins": st.booleans(),
        }
    ),
    st.sampled_from(["right", "left"]),
)
def test_call(lengths: list[int], options: dict, side: str) -> None:
    ours, peer = SeamlessM4TFeatureExtractor(padding_side=side), Peer(padding_side=side)
    clips = [noise(length, length) for length in lengths]
    assert_same(ours(clips, sampling_rate=16000, **options), peer(clips, sampling_rate=16000, **options))


@pytest.mark.parametrize(
    "options",
    [{}, {"num_mel_bins": 40, "feature_size": 40}, {"padding_value": -3.0}, {"sampling_rate": 8000}],
)
def test_configurations(options: dict) -> None:
    rate = options.get("sampling_rate", 16000)
    clips = [noise(9000), noise(5001, 1)]
    ours = SeamlessM4TFeatureExtractor(**options)(clips, sampling_rate=rate)
    assert_same(ours, Peer(**options)(clips, sampling_rate=rate))


@pytest.mark.parametrize("samples", [560, 720, 16000, 16001, 50000])
def test_silence(samples: int) -> None:
    """All energies lie on the floor: the peer gives zeros, or 3e-3 where its mean rounds; so do we."""
    silence = np.zeros(samples, np.float32)
    peer = PEER(silence, sampling_rate=16000)["input_features"]
    assert np.abs(peer).max() < 4e-3
    np.testing.assert_array_equal(OURS(silence, sampling_rate=16000)["input_features"], peer)


def test_real_speech(shared_data: Path) -> None:
    """Everything that soundfile decodes, at 16 kHz: bit for bit, but for a rounding in a million."""
    files = sorted(shared_data.glob("librispeech/*.flac"))
    files += sorted(shared_data.glob("strings/*.wav"))
    files += sorted(shared_data.glob("digits/recordings/*_[0-7].wav"))
    files += [shared_data / "meeting" / "dev00.wav"]
    files += [path for path in (shared_data / "formats").iterdir() if path.stem in ("jfk", "audio")]
    assert len(files) > 280
    different = total = 0
    for path in files:
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(audio.mean(1))
        waveform = torchaudio.functional.resample(waveform, rate, 16000).numpy()
        features = OURS.extract(waveform)
        peer = PEER(waveform, sampling_rate=16000)
        expected = peer["input_features"][0][peer["attention_mask"][0].astype(bool)]
        np.testing.assert_allclose(features, expected, atol=1e-4, err_msg=path.name)
        different += np.count_nonzero(features != expected)
        total += features.size
    assert different / total < 1e-6


def test_peer_faults() -> None:
    """What the peer does with the inputs that ours handles: should it change, ours may follow."""
    assert np.isnan(PEER(noise(559), sampling_rate=16000)["input_features"]).any()
    two_dimensional = torch.from_numpy(np.stack([noise(16000, seed) for seed in range(3)]))
    assert len(PEER(two_dimensional, sampling_rate=16000)["input_features"]) == 1
    assert len(OURS(two_dimensional, sampling_rate=16000)["input_features"]) == 3


@pytest.mark.parametrize("save", ["ours", "peer"])
def test_files_exchange(tmp_path: Path, save: str) -> None:
    options = {"num_mel_bins": 40, "feature_size": 40, "padding_value": 0.5, "house_rule": 1}
    writer, reader = (
        (SeamlessM4TFeatureExtractor, Peer) if save == "ours" else (Peer, SeamlessM4TFeatureExtractor)
    )
    written = writer(**options)
    written.save_pretrained(tmp_path)
    read = reader.from_pretrained(tmp_path)
    clips = [noise(5000), noise(3000)]
    first, second = written(clips, sampling_rate=16000), read(clips, sampling_rate=16000)
    np.testing.assert_allclose(first["input_features"], second["input_features"], atol=2e-6)
    assert read.to_dict()["house_rule"] == 1
