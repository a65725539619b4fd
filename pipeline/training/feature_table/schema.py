"""The columns of the feature table: those of any table of ours, and the features."""

from __future__ import annotations

import pyarrow as pa

from pipeline.schema import STATISTICS_COLUMNS

# `features`: (frames, width) float16, C order, as inference sees them: normalised per bin over the clip,
# without a last frame that the audio fills only in part. `log_mel_mean` and `log_mel_std`, (num_mel_bins,)
# each, are what was taken away: features * std + mean is the log mel energy again. None of the three where
# a clip is silent.
FEATURES: dict[str, pa.DataType] = {
    "speed": pa.float32(),
    "frames": pa.int32(),
    "features": pa.large_binary(),
    **STATISTICS_COLUMNS,
}
