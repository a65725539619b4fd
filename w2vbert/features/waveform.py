"""What counts as audio: types, scales, batches and channels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Channel = Literal["mean", "left"] | int
Samples = np.ndarray[Any, Any]

# Integer samples are PCM; of other integers nobody can say what full scale is.
_FULL_SCALE = {np.dtype(np.int16): 2**15, np.dtype(np.int32): 2**31}


def as_samples(audio: Any) -> Samples:
    """An array of whatever shape; bare Python numbers count as float samples.

    Raises:
        TypeError: not numbers, or lists of different lengths.
    """
    if isinstance(audio, torch.Tensor):
        return audio.detach().cpu().numpy()
    if isinstance(audio, np.ndarray):
        return audio
    try:
        return np.asarray(audio, np.float32)
    except (ValueError, TypeError) as error:
        raise TypeError(f"audio must be numbers in an array, a tensor or lists: {error}") from error


def as_clips(audio: Any, minimum: int) -> list[Samples]:
    """The clips of a batch, each of one or two dimensions; a single clip is a batch of one.

    Args:
        audio: a clip, a list of clips, or an array or tensor with the batch first. A two-dimensional array is
            a batch, unless only its first axis is long enough to be time: then it is (samples, channels).
        minimum: the fewest samples that a clip can have.
    """
    if isinstance(audio, (list, tuple)) and len(audio) and not np.isscalar(audio[0]):
        return [as_samples(clip) for clip in audio]
    samples = as_samples(audio)
    if samples.ndim < 2 or (samples.ndim == 2 and _time_first(samples, minimum)):
        return [samples]
    return list(samples)


def mono(clip: Samples, channel: Channel | None, minimum: int) -> NDArray[np.float32]:
    """One channel of a clip, (samples,) float32 in [-1, 1].

    Args:
        clip: (samples,), (channels, samples), or (samples, channels) where only the first axis can be time.
        channel: "mean" of all channels, "left" or an index; needed only where there are several.
        minimum: the fewest samples that a clip can have.

    Raises:
        ValueError: several channels and no choice, a channel that is not there, or another shape.
        TypeError: integers without an agreed full scale.
    """
    if clip.ndim not in (1, 2):
        raise ValueError(f"a clip has the shape (samples,) or (channels, samples), not {clip.shape}")
    channels = clip[None] if clip.ndim == 1 else clip.T if _time_first(clip, minimum) else clip
    if len(channels) == 1:
        return _full_scale(channels[0])
    if channel is None:
        raise ValueError(
            f"audio of shape {clip.shape} has {len(channels)} channels: choose channel='mean', 'left' "
            "(what the published extractor takes) or an index"
        )
    if channel == "mean":
        return np.asarray(_full_scale(channels).mean(axis=0, dtype=np.float32))
    index = 0 if channel == "left" else channel
    if not isinstance(index, int) or not 0 <= index < len(channels):
        raise ValueError(f"channel must be 'mean', 'left' or an index below {len(channels)}, not {channel!r}")
    return _full_scale(channels[index])


def finite(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The waveform itself, if all its samples are numbers."""
    if not np.isfinite(waveform).all():
        raise ValueError("the audio holds samples that are not finite (NaN or infinity)")
    return waveform


def _time_first(samples: Samples, minimum: int) -> bool:
    return bool(samples.shape[0] >= minimum > samples.shape[1])


def _full_scale(samples: Samples) -> NDArray[np.float32]:
    if np.issubdtype(samples.dtype, np.floating):
        return np.ascontiguousarray(samples, np.float32)
    if full_scale := _FULL_SCALE.get(samples.dtype):
        return (samples / full_scale).astype(np.float32)
    raise TypeError(
        f"samples of type {samples.dtype} have no agreed full scale: give float in [-1, 1], int16 or int32"
    )
