"""Feature tables for tests: the columns of a real one, features made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Code
from pipeline.schema import CLIP_COLUMNS
from pipeline.storage import Storage, StorageOptions
from pipeline.training.examples.rows import Rows
from pipeline.training.feature_table.schema import FEATURES
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor
from w2vbert.features.fbank import normalize

STORAGE = Storage(StorageOptions())
FRAME_S = 0.02
BINS = 80


def energies_of(seed: int, frames: int) -> np.ndarray:
    """(2 * frames, 80) log mel energies, float32: a level for each bin, and noise."""
    generator = np.random.default_rng(seed)
    levels = generator.normal(8, 3, BINS)
    return (levels + generator.normal(0, 1.5, (2 * frames, BINS))).astype(np.float32)


def clip(
    clip_id: str, frames: int | None = 50, *, energies: np.ndarray | None = None, **columns: Any
) -> dict[str, Any]:
    """A row; without frames it is silent."""
    row = {"clip_id": clip_id, "shard": "a.tar", "sample_rate": 16000, "channels": 1, "speed": 1.0}
    if frames is not None:
        energies = energies_of(sum(clip_id.encode()), frames) if energies is None else energies
        mean, std = energies.mean(axis=0), energies.std(axis=0, ddof=1)
        features = np.ascontiguousarray(normalize(np.ascontiguousarray(energies.T)).T).astype(np.float16)
        row |= {
            "frames": frames,
            "features": features.tobytes(),
            "log_mel_mean": mean,
            "log_mel_std": std,
            "duration_s": frames * FRAME_S,
        }
    return {"duration_s": 1.0, **row, **columns}


def broken(clip_id: str, code: Code, message: str) -> dict[str, Any]:
    """A row of a clip that could not be read."""
    error = {"stage": "decode", "code": code.value, "message": message}
    return {"clip_id": clip_id, "shard": "a.tar", "speed": 1.0, "error": error}


def write(path: Path, clips: Iterable[Mapping[str, Any]]) -> str:
    """Writes a file of the table; columns beside its own are the input's."""
    rows = list(clips)
    own = {**CLIP_COLUMNS, **FEATURES}
    given = dict.fromkeys(name for row in rows for name in row if name not in own)
    columns = {name: pa.array([row.get(name) for row in rows], own[name]) for name in own}
    columns |= {name: pa.array([row.get(name) for row in rows]) for name in given}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False, row_group_size=4)
    return str(path)


def rows_of(path: Path, clips: Iterable[Mapping[str, Any]], *columns: str) -> Rows:
    return Rows.read([write(path / "part-0.parquet", clips)], STORAGE, columns)


@cache
def extractor() -> SeamlessM4TFeatureExtractor:
    return SeamlessM4TFeatureExtractor()
