"""What takes processes down with it: a reader, a voice-activity detector, and an annotation."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import torch
from pydantic import BaseModel

from pipeline.corpus.clips import Clip, Shard
from pipeline.corpus.readers.base import TABLE_ROWS, Reader
from pipeline.errors import ClipError, Code, Stage
from pipeline.storage import Storage, StorageFile
from pipeline.tasks.base import ClipFrames, HeadParts, PackedWindow, Task, Values
from w2vbert.model import Wav2Vec2BertModel

# Clips are told by their length: seconds.
CRASHES_DETECTOR, POISONS_DEVICE, EXITS, KILLED_ONCE = 0.45, 0.65, 0.75, 0.85
ILLEGAL = "CUDA error: an illegal memory access was encountered"


class Detector:
    """Everything is speech; one clip crashes it, as damaged audio does decoders."""

    def __init__(self) -> None:
        self.samples = 0

    def add(self, samples: Any) -> None:
        self.samples += len(samples)

    def finish(self) -> Iterable[tuple[float, float]]:
        if self.samples == round(16_000 * CRASHES_DETECTOR):
            os.kill(os.getpid(), signal.SIGSEGV)
        return [(0.0, self.samples / 16_000)]


class FatalReader(Reader):
    """Its shards crash the process that reads them, when the first table of clips is out."""

    name: ClassVar[str] = "fatal"
    endings: ClassVar[tuple[str, ...]] = (".fatal",)

    def clips(self, file: StorageFile, shard: Shard, slice: Any) -> Iterator[Clip]:
        error = ClipError(Stage.READ, Code.EMPTY, "nothing is here")
        for number in range(TABLE_ROWS):
            yield Clip(shard.clip_id(f"{number}"), shard.uri, error=error)
        os.kill(os.getpid(), signal.SIGSEGV)

    def columns(self, shard: Shard, storage: Storage) -> pa.Schema:
        return pa.schema([])


class FatalOptions(BaseModel):
    folder: str = ""  # for a file of each death


class FatalHead:
    """The bare encoder."""

    def __init__(self, parts: HeadParts) -> None:
        self.model: Wav2Vec2BertModel = parts.model
        self.folder = Path(parts.options.folder)

    def outputs(self, encoding: Any, windows: Sequence[PackedWindow]) -> Sequence[Any]:
        for window in windows:
            self.meet(round(window.clip.duration_s, 2))
        return [float(frames.abs().mean()) for frames in encoding.extract_features.split()]

    def meet(self, seconds: float) -> None:
        deaths = self.folder / f"{seconds}"
        if seconds in (POISONS_DEVICE, EXITS) or (seconds == KILLED_ONCE and not deaths.exists()):
            with deaths.open("a") as file:
                file.write(f"{os.getpid()}\n")
            if seconds == POISONS_DEVICE:
                raise torch.AcceleratorError(ILLEGAL)
            if seconds == EXITS:
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    def accumulator(self, clip: ClipFrames) -> Size:
        return Size()


class Size:
    def __init__(self) -> None:
        self.size = 0.0

    def add(self, window: Any, outputs: Mapping[str, Any]) -> None:
        self.size += outputs["fatal"]

    def finish(self) -> Values:
        return {"size": np.float32(self.size), "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}


FATAL = Task(
    name="fatal",
    does="kills",
    about="Kill processes.",
    makes="a size",
    model=lambda: Wav2Vec2BertModel,
    options=FatalOptions,
    columns=lambda options, config: {"size": pa.float32(), "visible": pa.string()},
    column_names=frozenset({"size", "visible"}),
    head=FatalHead,
)
