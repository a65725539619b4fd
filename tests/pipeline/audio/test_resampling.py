"""Resampling block by block against torchaudio's resampling of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio.resampling import Resampler, resample


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)


def in_blocks(samples: np.ndarray, rate: int, cuts: list[int]) -> np.ndarray:
    resampler = Resampler(rate)
    blocks = np.split(samples, sorted(min(cut, len(samples)) for cut in cuts))
    return np.concatenate([*(resampler.add(block) for block in blocks), resampler.finish()])


@settings(deadline=None)
@given(
    rate=st.sampled_from([1000, 8000, 11025, 16000, 22050, 44100, 48000, 96000]),
    length=st.integers(1, 20_000),
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
)
def test_blocks_are_the_whole(rate: int, length: int, cuts: list[int]) -> None:
    samples = noise(length)
    blocks = in_blocks(samples, rate, cuts)
    assert len(blocks) == -(-length * 16000 // rate)
    whole = resample(samples, rate)
    assert len(blocks) - len(whole) in (0, 1)
    np.testing.assert_allclose(blocks[: len(whole)], whole, atol=1e-6)


@pytest.mark.parametrize("rate", [44101, 44102, 15999])
def test_rates_with_few_divisors(rate: int) -> None:
    samples = noise(100_000)
    blocks = in_blocks(samples, rate, [1, 30_000, 30_001, 64_000])
    whole = resample(samples, rate)
    assert len(blocks) - len(whole) in (0, 1)
    np.testing.assert_allclose(blocks[: len(whole)], whole, atol=1e-6)


def test_at_the_models_rate_samples_stay_as_they_are() -> None:
    samples = noise(1000)
    np.testing.assert_array_equal(in_blocks(samples, 16000, [100, 101, 900]), samples)


def test_memory_of_a_stream_is_a_block() -> None:
    resampler = Resampler(44100)
    made = sum(len(resampler.add(np.zeros(44100, np.float32))) for _ in range(200))
    made += len(resampler.finish())
    assert made == 200 * 16000
    assert len(resampler._pending) < 2 * 44100


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_held_filters_give_the_bits_of_fresh_ones(rate: int) -> None:
    samples = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    fresh = torchaudio.functional.resample(torch.from_numpy(samples), rate, 16000).numpy()
    for _ in range(2):
        np.testing.assert_array_equal(resample(samples, rate), fresh)
