"""SeamlessM4TFeatureExtractor: waveforms to what the encoder reads, log mel frames stacked in pairs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from w2vbert.arrays import round_up
from w2vbert.features.batch import BatchFeature, TensorType
from w2vbert.features.configuration import ConfiguredExtractor, without_file_keys
from w2vbert.features.fbank import Array, Fbank, FbankStatistics, normalize
from w2vbert.features.padding import Padding, columns, pad_to, padded_length
from w2vbert.features.waveform import Channel, Samples, as_clips, as_samples, finite, mono
from w2vbert.fields import ConfigError, flag, real, shown, whole

logger = logging.getLogger(__name__)

_MAX_BINS, _MAX_STRIDE, _RATES = 1024, 64, (1_000, 768_000)


class AudioTooShortError(ValueError):
    """Less audio than one model frame needs."""


class SeamlessM4TFeatureExtractor(ConfiguredExtractor):
    """Log mel features, normalised per bin over the clip, `stride` frames stacked into one.

    At 16 kHz a frame of fbank is 25 ms long and comes every 10 ms; a stacked frame comes every 20 ms. A clip
    of n fbank frames has n // stride stacked frames: the rest is padded and masked out, as published.

    Args:
        feature_size, num_mel_bins: mel bins of one frame.
        sampling_rate: of the waveforms, in hertz.
        padding_value: fills stacked frames beyond a clip's end.
        stride: fbank frames in one stacked frame.
        padding_side: "right" or "left".
        return_attention_mask: whether `__call__` and `pad` return the mask when not told.
        extra: keys of a configuration that mean nothing here. They are attributes, and `save_pretrained`
            writes them back.

    Raises:
        ConfigError: an impossible value; names the field.
    """

    model_input_names: ClassVar[list[str]] = ["input_features", "attention_mask"]

    def __init__(
        self,
        /,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        num_mel_bins: int = 80,
        padding_value: float = 0.0,
        stride: int = 2,
        padding_side: Literal["right", "left"] = "right",
        return_attention_mask: bool = True,
        **extra: Any,
    ) -> None:
        whole("feature_size", feature_size, 1, _MAX_BINS)
        whole("sampling_rate", sampling_rate, *_RATES)
        whole("num_mel_bins", num_mel_bins, 1, _MAX_BINS)
        real("padding_value", padding_value, -1e9, 1e9)
        whole("stride", stride, 1, _MAX_STRIDE)
        if padding_side not in ("right", "left"):
            raise ConfigError("padding_side", f"must be 'right' or 'left', is {shown(padding_side)}")
        flag("return_attention_mask", return_attention_mask)
        self.feature_size = feature_size
        self.sampling_rate = sampling_rate
        self.num_mel_bins = num_mel_bins
        self.padding_value = padding_value
        self.stride = stride
        self.padding_side = padding_side
        self.return_attention_mask = return_attention_mask
        self.extra = without_file_keys(extra)
        self.fbank = Fbank(
            num_mel_bins=num_mel_bins, sampling_rate=sampling_rate, high_frequency=sampling_rate // 2
        )

    @property
    def mel_filters(self) -> NDArray[np.float64]:
        """As published: the weight of each frequency in each mel bin, (frequencies, num_mel_bins)."""
        return self.fbank.mel_filters().T

    @property
    def window(self) -> NDArray[np.float64]:
        """As published: what a frame of fbank is multiplied with, (samples,)."""
        return self.fbank.window

    @property
    def minimum_samples(self) -> int:
        """The shortest clip with features: one stacked frame, and two frames to take a variance of."""
        return self.fbank.num_samples(max(self.stride, 2))

    @property
    def frame_s(self) -> float:
        """Seconds from one stacked frame to the next."""
        return self.seconds(1)

    def seconds(self, frames: int) -> float:
        """Seconds from the start of one stacked frame to that of the one `frames` later."""
        return frames * self.stride * self.fbank.frame_shift / self.sampling_rate

    def num_frames(self, num_samples: int, keep_partial: bool = False) -> int:
        """Stacked frames that `num_samples` of audio fill wholly: `num_valid` of a clip.

        Args:
            keep_partial: count a last frame that the audio fills only in part too; see `extract`.
        """
        frames = self.fbank.num_frames(num_samples)
        return round_up(frames, self.stride) // self.stride if keep_partial else frames // self.stride

    def __call__(
        self,
        raw_speech: Any,
        padding: Padding = True,
        pad_to_multiple_of: int | None = 2,
        max_length: int | None = None,
        truncation: bool = False,
        return_tensors: TensorType | None = None,
        sampling_rate: int | None = None,
        return_attention_mask: bool | None = None,
        do_normalize_per_mel_bins: bool = True,
        channel: Channel | None = None,
    ) -> BatchFeature:
        """Features of one clip or of a batch.

        Args:
            raw_speech: float samples in [-1, 1], or int16 / int32 PCM, which is scaled to that.
                One clip: a list of numbers, an array or tensor (samples,), or (samples, channels) as
                soundfile reads it. A batch: a list of clips, each (samples,), (channels, samples) or
                (samples, channels), or an array or tensor with the batch in front.
            padding: True or "longest", "max_length", or False.
            pad_to_multiple_of, max_length: in fbank frames, before they are stacked.
            truncation: cut clips to `max_length`.
            return_tensors: "pt" or "np"; NumPy arrays when not given.
            sampling_rate: of `raw_speech`. Say it: a wrong one shows in nothing but bad results. Without it
                the extractor's is taken, with a warning, as published.
            return_attention_mask: overrides the extractor's.
            do_normalize_per_mel_bins: zero mean and unit variance per bin over the clip.
            channel: of clips with several: "mean" of them, "left" (as published), or an index.

        Returns:
            `input_features` (batch, frames, num_mel_bins * stride) float32, and `attention_mask`
            (batch, frames) int32.

        Raises:
            AudioTooShortError: a clip shorter than `minimum_samples`.
            ValueError: a wrong sampling rate, several channels and no `channel`, samples that are
                not finite, or clips of different lengths without padding.
            TypeError: samples of a type that has no agreed scale.
        """
        self._check_sampling_rate(sampling_rate)
        energies = []
        clips = as_clips(raw_speech, self.minimum_samples)
        for index, clip in enumerate(clips):
            try:
                energies.append(self._energies(clip, channel, do_normalize_per_mel_bins).T)
            except (ValueError, TypeError) as error:
                where = f"clip {index} of {len(clips)}: " if len(clips) > 1 else ""
                raise type(error)(f"{where}{error}") from None
        padded = self.pad(
            {"input_features": energies},
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors="np",
        )
        if padded["input_features"].dtype == object:
            raise ValueError("clips of different lengths make no tensor; ask for padding=True")
        features = stack_frames(padded["input_features"], self.stride)
        batch = BatchFeature({"input_features": features})
        if self.return_attention_mask if return_attention_mask is None else return_attention_mask:
            # A stacked frame counts when its last fbank frame does.
            whole = features.shape[1] * self.stride
            batch["attention_mask"] = padded["attention_mask"][:, self.stride - 1 : whole : self.stride]
        return batch.convert_to_tensors(return_tensors)

    def extract(self, waveform: Any, channel: Channel | None = None, keep_partial: bool = False) -> Array:
        """Features of one clip: what `__call__` gives for it alone, without the frames its mask leaves out.

        Args:
            waveform: (samples,) or several channels, as in `__call__`, at `sampling_rate`.
            channel: as in `__call__`.
            keep_partial: keep a last frame that the audio fills only in part, padded. The mask leaves it out,
                but the published model computes it and the published decoding reads it: without it a word
                that runs to the end of a clip may end a frame, or a letter, earlier.

        Returns:
            (frames, num_mel_bins * stride) float32, frames = `num_frames(samples)`, and one more when a
            partial one is kept.

        Raises:
            AudioTooShortError, ValueError, TypeError: as `__call__`.
        """
        features, _ = self.extract_with_statistics(waveform, channel, keep_partial)
        return features

    def extract_with_statistics(
        self, waveform: Any, channel: Channel | None = None, keep_partial: bool = False
    ) -> tuple[Array, FbankStatistics]:
        """`extract`, and what its normalisation took away.

        Features times the deviation plus the mean, each `stride` times in a row, are the log mel energies.
        """
        energies = self._energies(as_samples(waveform), channel, normalized=False)
        statistics = FbankStatistics.of(energies)
        return self._stacked(statistics.normalize(energies).T, keep_partial), statistics

    def _stacked(self, features: Array, keep_partial: bool) -> Array:
        if keep_partial:
            length = round_up(len(features), self.stride)
            features = pad_to(features, length, self.padding_value, "right")
        return stack_frames(features, self.stride)

    def pad(
        self,
        processed_features: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: Padding = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: TensorType | None = None,
    ) -> BatchFeature:
        """Put features of several clips into one array.

        Args:
            processed_features: {"input_features": [(frames, width), ...]}, with "attention_mask" or without,
                or a list with a mapping for each clip, as a data loader has it. Other entries become arrays.
            padding, max_length, truncation, pad_to_multiple_of: as in `__call__`, in frames of what is given.
            return_attention_mask, return_tensors: as in `__call__`; tensors in, tensors out.

        Returns:
            `input_features` (batch, frames, width) and `attention_mask` (batch, frames) int32; arrays of
            arrays where lengths differ. float64 becomes float32.
        """
        processed_features = columns(processed_features, "input_features")
        clips = list(processed_features["input_features"])
        with_mask = self.return_attention_mask if return_attention_mask is None else return_attention_mask
        if not clips:
            return BatchFeature({**processed_features, **({"attention_mask": []} if with_mask else {})})
        if return_tensors is None:
            return_tensors = "pt" if isinstance(clips[0], torch.Tensor) else "np"
        clips = [_single(np.asarray(clip)) for clip in clips]
        masks = [np.asarray(mask) for mask in processed_features.get("attention_mask", ())]
        masks = masks or [np.ones(len(clip), np.int32) for clip in clips]

        if truncation:
            if max_length is None:
                raise ValueError("truncation=True needs max_length")
            limit = round_up(max_length, pad_to_multiple_of)
            clips, masks = [clip[:limit] for clip in clips], [mask[:limit] for mask in masks]
        target = padded_length([len(clip) for clip in clips], padding, max_length, pad_to_multiple_of)
        batch = BatchFeature(processed_features)
        batch["input_features"] = [
            pad_to(clip, target, self.padding_value, self.padding_side) for clip in clips
        ]
        batch["attention_mask"] = [pad_to(mask, target, 0, self.padding_side) for mask in masks]
        if not with_mask:
            del batch["attention_mask"]
        return batch.convert_to_tensors(return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The published configuration, with whatever extra keys came in."""
        return {
            **self.extra,
            "feature_extractor_type": self.feature_extractor_type,
            "feature_size": self.feature_size,
            "num_mel_bins": self.num_mel_bins,
            "padding_side": self.padding_side,
            "padding_value": self.padding_value,
            "return_attention_mask": self.return_attention_mask,
            "sampling_rate": self.sampling_rate,
            "stride": self.stride,
        }

    @staticmethod
    def zero_mean_unit_var_norm(
        input_values: Sequence[Any], attention_mask: Any = None, padding_value: float = 0.0
    ) -> list[Any]:
        """Each waveform with zero mean and unit variance; published with this class, which does not use it.

        Args:
            input_values: arrays or tensors (samples,).
            attention_mask: (batch, samples), 1 where there is audio; None: everywhere.
            padding_value: what stands where it is 0.
        """
        normed = []
        for index, values in enumerate(input_values):
            length = len(values) if attention_mask is None else int(np.asarray(attention_mask[index]).sum())
            audio = values[:length]
            values = (values - audio.mean()) / (audio.var() + 1e-7) ** 0.5
            values[length:] = padding_value
            normed.append(values)
        return normed

    def _check_sampling_rate(self, sampling_rate: int | None) -> None:
        if sampling_rate is None:
            logger.warning(
                "the sampling rate of the audio is not said and taken to be %d Hz, as the model was "
                "trained on. Pass sampling_rate: a wrong one shows in nothing but bad results.",
                self.sampling_rate,
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"the model was trained on audio of {self.sampling_rate} Hz, this has {sampling_rate} Hz: "
                "resample it"
            )

    def _energies(self, clip: Samples, channel: Channel | None, normalized: bool) -> Array:
        """(num_mel_bins, frames) of one clip."""
        waveform = finite(mono(clip, channel, self.minimum_samples))
        if len(waveform) < self.minimum_samples:
            raise AudioTooShortError(self._too_short(f"{len(waveform)} samples"))
        energies = self.fbank(waveform)
        return normalize(energies) if normalized else energies

    def _too_short(self, what: str) -> str:
        minimum = self.minimum_samples
        seconds = minimum / self.sampling_rate
        return f"{what} of audio are too few: the model needs {minimum} samples ({seconds:.3f} s) or more"


def stack_frames(features: Array, stride: int) -> Array:
    """`stride` frames side by side: (..., frames, width) to (..., frames // stride, width * stride)."""
    *batch, frames, width = features.shape
    frames = frames // stride
    whole = np.ascontiguousarray(features[..., : frames * stride, :])
    return whole.reshape(*batch, frames, width * stride)


def _single(array: Array) -> Array:
    """As it is, but for double precision, which nothing reads."""
    return array.astype(np.float32) if array.dtype == np.float64 else array
