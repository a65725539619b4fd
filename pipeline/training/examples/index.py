"""The index: where each example's features lie, how long it is, and its targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.storage import Storage, is_remote, path_of

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ragged:
    """Sequences of numbers, end to end: sequence i is `values[offsets[i] : offsets[i + 1]]`."""

    values: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]

    def __getitem__(self, index: int) -> Ints:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(sequences,)"""
        return np.diff(self.offsets)

    @property
    def arrow(self) -> pa.LargeListArray:
        return pa.LargeListArray.from_arrays(self.offsets, self.values)

    @classmethod
    def of(cls, lists: pa.LargeListArray) -> Ragged:
        """The sequences of lists of int32, of which none is null."""
        offsets = lists.offsets.to_numpy()
        return cls(lists.flatten().to_numpy(), offsets - offsets[0])

    def take(self, indices: npt.NDArray[np.int64]) -> Ragged:
        """The sequences of these indices, in their order."""
        if np.array_equal(indices, np.arange(len(self.offsets) - 1)):
            return self  # hundreds of millions of tokens need not lie in memory twice
        return Ragged.of(self.arrow.take(pa.array(indices)))


@dataclass(frozen=True)
class Targets:
    """What each example is to be recognised as, for one task.

    Attributes:
        has: (examples,) bool: whether the example has a target for this task.
        values: transcribe: token ids. classify, embed: one index of a class. diarize: triples (speaker, first
            frame, one past the last), flat, speakers numbered from 0 within the clip.
    """

    has: npt.NDArray[np.bool_]
    values: Ragged

    def take(self, indices: npt.NDArray[np.int64]) -> Targets:
        """Those of the examples of these indices, in their order."""
        return Targets(self.has[indices], self.values.take(indices))


@dataclass(frozen=True)
class Index:
    """The examples of a run: clips with a target for at least one of its tasks.

    Attributes:
        clip_ids: (examples,) string; with several speeds a clip is several examples.
        speeds: (examples,) float32.
        files: URIs of the feature table's files.
        file, row: (examples,) which of them, and which row in it.
        frames: (examples,) at 20 ms with the published extractor.
        targets: by task.
    """

    clip_ids: pa.StringArray
    speeds: npt.NDArray[np.float32]
    files: Sequence[str]
    file: Ints
    row: Ints
    frames: Ints
    targets: Mapping[str, Targets]

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def digest(self) -> str:
        """SHA-256 of all that order and targets follow from; where the files lie is no part of it."""
        digest = hashlib.sha256(json.dumps([self.clip_ids.to_pylist(), sorted(self.targets)]).encode())
        arrays: list[npt.NDArray[Any]] = [self.speeds, self.file, self.row, self.frames]
        for _, targets in sorted(self.targets.items()):
            arrays += [targets.has, targets.values.values, targets.values.offsets]
        for array in arrays:
            digest.update(np.ascontiguousarray(array).data)
        return f"sha256:{digest.hexdigest()}"

    def save(self, uri: str, storage: Storage) -> None:
        """Writes it as an Arrow IPC file."""
        columns = {"clip_id": self.clip_ids, "speed": self.speeds}
        columns |= {name: getattr(self, name) for name in ("file", "row", "frames")}
        for task, targets in self.targets.items():
            columns |= {f"has_{task}": targets.has, task: targets.values.arrow}
        batch = pa.record_batch({name: pa.array(column) for name, column in columns.items()})
        about = {"files": json.dumps(list(self.files)), "tasks": json.dumps(list(self.targets))}
        schema = batch.schema.with_metadata(about)
        with storage.writing(uri) as file, pa.ipc.new_file(file, schema) as writer:
            writer.write_batch(batch.cast(schema))

    @classmethod
    def load(cls, uri: str, storage: Storage) -> Index:
        """Reads what `save` wrote; a local file is mapped, so that the workers of a node share its memory.

        Raises:
            StorageError: no such file.
        """
        local = not is_remote(uri) and storage.exists(uri)
        source = pa.memory_map(path_of(uri)) if local else pa.BufferReader(storage.read_bytes(uri))
        with pa.ipc.open_file(source) as reader:
            batch, about = reader.get_batch(0), reader.schema.metadata
        speeds, *places = (batch[name].to_numpy() for name in ("speed", "file", "row", "frames"))
        targets = {
            task: Targets(batch[f"has_{task}"].to_numpy(zero_copy_only=False), Ragged.of(batch[task]))
            for task in json.loads(about[b"tasks"])
        }
        file, row, frames = places
        return cls(batch["clip_id"], speeds, json.loads(about[b"files"]), file, row, frames, targets)
