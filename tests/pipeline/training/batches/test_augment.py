"""Augmentation in the feature domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Code, JobError
from pipeline.training.batches.augment import Augmentation, Augmenter, NoiseTable, log_mel, mask_bins
from pipeline.training.batches.cache import FeatureCache, StoredClip
from pipeline.training.batches.mel import MelAxis
from tests.pipeline.training.tables import STORAGE, broken, clip, energies_of, extractor, rows_of

AXIS = MelAxis(extractor().fbank)
ALL = Augmentation(
    gain_db=6, noise=("white", "pink", "brown"), mel_warp=0.1, freq_masks=2, freq_mask_width=10
)


def stored(seed: int = 0, frames: int = 120) -> StoredClip:
    row = clip("x", frames, energies=energies_of(seed, frames))
    features = np.frombuffer(row["features"], np.float16).reshape(frames, 160)
    return StoredClip(features, row["log_mel_mean"], row["log_mel_std"])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def augmented(settings: Augmentation, seed: int = 0, **arguments: Any) -> np.ndarray:
    return Augmenter(settings, extractor(), **arguments)([stored()], rng(seed))


def energies(features: np.ndarray, like: StoredClip) -> np.ndarray:
    return log_mel(StoredClip(features, like.mean, like.std))


def test_with_everything_off_features_are_the_stored_ones() -> None:
    found = augmented(Augmentation())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored().features.astype(np.float32))
    # Noise that is not drawn for a clip leaves it as it is too.
    np.testing.assert_array_equal(augmented(Augmentation(noise=("white",), noise_prob=0)), found)


def test_seeds_reproduce() -> None:
    np.testing.assert_array_equal(augmented(ALL, 5), augmented(ALL, 5))
    assert np.abs(augmented(ALL, 5) - augmented(ALL, 6)).max() > 0.1
    assert np.isfinite(augmented(ALL, 5)).all()


@pytest.mark.parametrize(
    "change", [{"gain_db": 6.0}, {"mel_warp": 0.1}, {"noise": ["pink"], "noise_prob": 1.0}]
)
def test_features_stay_normalised(change: dict[str, Any]) -> None:
    found = augmented(Augmentation(**change)).reshape(-1, 80)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0, ddof=1), 1, atol=1e-3)
    assert np.abs(found - stored().features.reshape(-1, 80)).max() > 0.1


def test_the_order_of_stacked_frames_stays() -> None:
    """With noise far below the clip next to nothing changes, wherever the numbers lie."""
    found = augmented(Augmentation(noise=("white",), noise_prob=1, noise_snr_db=(200, 200)))
    np.testing.assert_allclose(found, stored().features, atol=0.02)


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize("ratio_db", [-5.0, 0.0, 15.0])
def test_noise_is_added_at_its_ratio(colour: str, ratio_db: float) -> None:
    loud = log_mel(stored())
    augmenter = Augmenter(
        Augmentation(noise=(colour,), noise_prob=1, noise_snr_db=(ratio_db, ratio_db)), extractor()
    )
    noisy = augmenter._with_noise(loud, rng())
    assert (noisy >= loud - 1e-5).all()
    added = np.log(np.maximum(np.exp(noisy.astype(float)) - np.exp(loud.astype(float)), 1e-30))
    measured = (AXIS.power(loud) - AXIS.power(added)) * 10 / np.log(10)
    assert measured == pytest.approx(ratio_db, abs=0.1)


def test_ratios_are_drawn_in_their_range() -> None:
    augmenter = Augmenter(Augmentation(noise=("white",), noise_snr_db=(5, 30)), extractor())
    loud = log_mel(stored())
    generator, ratios = rng(), []
    for _ in range(60):
        noisy = augmenter._with_noise(loud, generator)
        added = np.log(np.maximum(np.exp(noisy.astype(float)) - np.exp(loud.astype(float)), 1e-30))
        ratios.append((AXIS.power(loud) - AXIS.power(added)) * 10 / np.log(10))
    assert 4.5 < min(ratios) < 9
    assert 26 < max(ratios) < 30.5


def test_a_share_of_the_clips_gets_noise() -> None:
    augmenter = Augmenter(Augmentation(noise=("white",), noise_prob=0.3), extractor())
    same = stored().features.astype(np.float32)
    changed = [not np.array_equal(augmenter([stored()], rng(seed)), same) for seed in range(300)]
    assert 0.2 < np.mean(changed) < 0.4


def test_a_gain_turns_the_volume_within_its_range() -> None:
    before = stored(frames=500)
    found = Augmenter(Augmentation(gain_db=6), extractor())([before], rng())
    # Normalisation takes away a level and a scale for each bin; what is left is the same curve in all bins.
    change = found.reshape(-1, 80) * before.std - before.features.reshape(-1, 80).astype(float) * before.std
    curve = np.median(change - change.mean(axis=0), axis=1) * 10 / np.log(10)
    assert 2 < curve.max() - curve.min() < 12.5
    assert np.abs(np.diff(curve)).max() < 1  # no jumps


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_a_mask_covers_neighbouring_bins(seed: int, width: int) -> None:
    features = np.ones((4, 2, 80), np.float32)
    mask_bins(features, width, rng(seed))
    masked = np.flatnonzero(features[0, 0] == 0)
    assert len(masked) <= min(width, 80)
    assert (np.diff(masked) == 1).all()
    assert (
        features == features[:1, :1]
    ).all()  # the same in both fbank frames of a stacked one, at all times


def test_masks_reach_every_bin_and_every_width() -> None:
    widths, covered = set(), np.zeros(80, bool)
    for seed in range(400):
        features = np.ones((1, 80), np.float32)
        mask_bins(features, 10, rng(seed))
        widths.add(int((features == 0).sum()))
        covered |= features[0] == 0
    assert widths == set(range(11))
    assert covered.all()


def test_masks_alone_leave_the_other_numbers_as_stored() -> None:
    found = augmented(Augmentation(freq_masks=2, freq_mask_width=20))
    kept = found != 0
    assert 0.5 < kept.mean() < 1
    np.testing.assert_array_equal(found[kept], stored().features.astype(np.float32)[kept])


def test_joined_clips_keep_how_loud_they_are() -> None:
    quiet = stored(0, 60)._replace(mean=stored(0, 60).mean - 5)
    found = Augmenter(Augmentation(), extractor())([quiet, stored(0, 60)], rng())
    assert found.shape == (120, 160)
    halves = found.reshape(2, 120, 80).mean(axis=1)
    assert (halves[0] < halves[1]).all()
    np.testing.assert_allclose(found.reshape(-1, 80).std(axis=0, ddof=1), 1, atol=1e-3)


def test_an_unknown_colour_is_refused() -> None:
    with pytest.raises(
        JobError, match=r"--noise 'blue' is no colour of noise: there are white, pink, brown\."
    ):
        Augmentation(noise=["white", "blue"])


def noise_table(tmp_path: Path, clips: list[dict[str, Any]]) -> NoiseTable:
    return NoiseTable(rows_of(tmp_path, clips), FeatureCache(STORAGE, tmp_path / "cache"))


def test_noise_comes_from_recordings(tmp_path: Path) -> None:
    long, short = energies_of(1, 300), energies_of(2, 10)
    clips = [
        clip("n#0", None),
        broken("n#1", Code.EMPTY, ""),
        clip("n#2", 300, energies=long),
        clip("n#3", 10, energies=short),
    ]
    table = noise_table(tmp_path, clips)
    generator, starts, rounds = rng(), set(), 0
    for _ in range(40):
        drawn = table.draw(100, generator)
        assert drawn.shape == (100, 80)
        if np.allclose(drawn[:20], drawn[20:40]):  # over and over
            np.testing.assert_allclose(drawn, np.tile(short, (5, 1)), atol=0.02)
            rounds += 1
            continue
        start = int(np.argmin(np.abs(long - drawn[0]).sum(axis=1)))
        np.testing.assert_allclose(drawn, long[start : start + 100], atol=0.02)
        starts.add(start)
    assert 5 < rounds < 35
    assert len(starts) > 5


def test_noise_from_recordings_has_its_ratio_too(tmp_path: Path) -> None:
    table = noise_table(tmp_path, [clip("n#0", 50)])
    augmenter = Augmenter(Augmentation(noise_prob=1, noise_snr_db=(3, 3)), extractor(), table)
    loud = log_mel(stored())
    noisy = augmenter._with_noise(loud, rng())
    added = np.log(np.maximum(np.exp(noisy.astype(float)) - np.exp(loud.astype(float)), 1e-30))
    assert (AXIS.power(loud) - AXIS.power(added)) * 10 / np.log(10) == pytest.approx(3, abs=0.1)


def test_no_noise_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--noise: none of the 1 recordings of noise can be used"):
        noise_table(tmp_path, [clip("n#0", None)])


def test_augmented_features_are_those_of_an_augmented_sound() -> None:
    """White noise added to a waveform, and to its features: the same up to the noise itself."""
    generator = np.random.default_rng(0)
    time = np.arange(3 * 16000) / 16000
    buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 30))
    sound = (0.1 * buzz * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)
    ratio_db = 10.0
    noise = generator.standard_normal(len(sound)) * sound.std() * 10 ** (-ratio_db / 20)
    fbank = extractor().fbank
    expected = fbank((sound + noise).astype(np.float32)).T
    augmenter = Augmenter(
        Augmentation(noise=("white",), noise_prob=1, noise_snr_db=(ratio_db, ratio_db)), extractor()
    )
    found = augmenter._with_noise(np.ascontiguousarray(fbank(sound).T), rng())
    smooth = [
        np.log(np.exp(one).reshape(-1, 2, 80).mean(axis=1)).mean(axis=0)
        for one in (expected[:296], found[:296])
    ]
    np.testing.assert_allclose(smooth[1], smooth[0], atol=0.35)  # 1.5 dB
