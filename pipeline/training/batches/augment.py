"""Augmentation in the feature domain: log mel energies in, log mel energies out, a generator each; no state.

Recordings are not needed: features * std + mean is the log mel energy again, noise adds up in energies, and
the vocal tract stretches the frequency axis. Time masks and masks of the encoder's input are the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.training.batches.cache import FeatureCache, StoredClip
from pipeline.training.batches.mel import COLOURS, MelAxis
from pipeline.training.examples.rows import Rows
from w2vbert.features.fbank import normalize

if TYPE_CHECKING:
    from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

Floats = npt.NDArray[np.float32]
_NEPERS = np.log(10) / 10  # of energy, in a decibel
_KNOT_FRAMES = 100  # of fbank, about a second: from one drawn gain to the next


@dataclass(frozen=True)
class Augmentation:
    """What is done to clips; nothing by default.

    Attributes:
        gain_db: greatest gain. It is drawn anew each second, with straight lines between: a constant one
            would be undone by the normalisation.
        noise: colours of noise to add; a `NoiseTable` is one more.
        noise_prob: share of the clips that get some.
        noise_snr_db: least and greatest signal-to-noise ratio, of mean powers.
        mel_warp: the frequency axis is stretched by a factor in [1 - mel_warp, 1 + mel_warp].
        freq_masks, freq_mask_width: number of masks over mel bins, and their greatest width.

    Raises:
        JobError: a colour that is none.
    """

    gain_db: float = 0.0
    noise: Sequence[str] = ()
    noise_prob: float = 0.5
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    mel_warp: float = 0.0
    freq_masks: int = 0
    freq_mask_width: int = 27

    def __post_init__(self) -> None:
        if strange := sorted(set(self.noise) - COLOURS.keys()):
            raise JobError(f"--noise {strange[0]!r} is no colour of noise: there are {', '.join(COLOURS)}.")


@dataclass(frozen=True)
class Joining:
    """Two clips made one, to learn what follows a pause.

    Attributes:
        prob: share of the clips that the next one of their pack is joined to.
        delimiter: token between the texts; None: there is none.
        max_frames: of the clip that is made.
        stride: encoder frames in a frame that tokens are read from.
    """

    prob: float
    delimiter: int | None
    max_frames: int
    stride: int = 1


class NoiseTable:
    """Noise recordings, as a feature table has them.

    Raises:
        JobError: no clip of the table can be used.
    """

    def __init__(self, rows: Rows, cache: FeatureCache) -> None:
        self._cache = cache
        bad = pc.or_(rows.table["clip.silent"], pc.is_valid(rows.table["clip.code"]))
        usable = rows.table.filter(pc.invert(bad))
        if not usable.num_rows:
            raise JobError(f"--noise: none of the {len(rows)} recordings of noise can be used.")
        self._uris = [rows.files[number] for number in usable["clip.file"].to_pylist()]
        self._rows = usable["clip.row"].to_pylist()

    def draw(self, frames: int, generator: np.random.Generator) -> Floats:
        """(frames, bins) log mel energies: a part of a recording, or one over and over where it is short."""
        number = int(generator.integers(len(self._rows)))
        found = log_mel(self._cache.file(self._uris[number]).clip(self._rows[number]))
        start = int(generator.integers(max(1, len(found) - frames + 1)))
        return found[np.arange(start, start + frames) % len(found)]


class Augmenter:
    """Makes of a stored clip what the model reads.

    Args:
        noise: recordings of noise.
        joining: which clips the reader joins; None: none.
    """

    def __init__(
        self,
        settings: Augmentation,
        extractor: SeamlessM4TFeatureExtractor,
        noise: NoiseTable | None = None,
        joining: Joining | None = None,
    ) -> None:
        self.joining = joining
        self._settings, self._noise = settings, noise
        self._axis = MelAxis(extractor.fbank)
        self._noises = [*settings.noise, *([None] if noise is not None else [])]

    def __call__(self, clips: Sequence[StoredClip], generator: np.random.Generator) -> Floats:
        """The features of clips that are joined to one, or of a single one: (frames, width) float32.

        Those of a single clip for which nothing is drawn are the stored ones, bit for bit.
        """
        settings = self._settings
        warped, varied = settings.mel_warp > 0, settings.gain_db > 0
        noisy = bool(self._noises) and generator.random() < settings.noise_prob
        if len(clips) == 1 and not (warped or varied or noisy):
            features = clips[0].features.astype(np.float32)
        else:
            energies = np.concatenate([log_mel(clip) for clip in clips])
            if warped:
                change = settings.mel_warp
                energies = self._axis.warp(energies, generator.uniform(1 - change, 1 + change))
            if varied:
                energies += _gains(len(energies), settings.gain_db, generator)[:, None]
            if noisy:
                energies = self._with_noise(energies, generator)
            normal = normalize(np.ascontiguousarray(energies.T)).T
            features = np.ascontiguousarray(normal).reshape(-1, clips[0].features.shape[1])
        bins = features.reshape(len(features), -1, len(clips[0].mean))  # a view
        for _ in range(settings.freq_masks):
            mask_bins(bins, settings.freq_mask_width, generator)
        return features

    def _with_noise(self, energies: Floats, generator: np.random.Generator) -> Floats:
        kind = self._noises[int(generator.integers(len(self._noises)))]
        if kind is not None:
            noise = self._axis.noise(kind, len(energies), generator)
        else:
            assert self._noise is not None
            noise = self._noise.draw(len(energies), generator)
        ratio = generator.uniform(*self._settings.noise_snr_db) * _NEPERS
        gain = self._axis.power(energies) - self._axis.power(noise) - ratio
        found: Floats = np.logaddexp(energies, noise + np.float32(gain))
        return found


def log_mel(clip: StoredClip) -> Floats:
    """(fbank frames, bins) log mel energies of a stored clip."""
    energies = clip.features.reshape(-1, len(clip.mean)).astype(np.float32)
    return energies * clip.std + clip.mean


def mask_bins(features: Floats, width: int, generator: np.random.Generator) -> None:
    """Sets some mel bins to their mean, in place.

    Source: Park et al. 2019, "SpecAugment" (arXiv:1904.08779), section 2: `width` is their F.

    Args:
        features: (..., bins) normalised per bin.
    """
    bins = features.shape[-1]
    masked = int(generator.integers(min(width, bins) + 1))
    start = int(generator.integers(bins - masked + 1))
    features[..., start : start + masked] = 0.0


def _gains(frames: int, gain_db: float, generator: np.random.Generator) -> Floats:
    """(frames,) what a volume that is turned up and down adds to log energies."""
    knots = np.arange(0, frames + _KNOT_FRAMES, _KNOT_FRAMES)
    drawn = generator.uniform(-gain_db, gain_db, len(knots)) * _NEPERS
    found: Floats = np.interp(np.arange(frames), knots, drawn).astype(np.float32)
    return found
