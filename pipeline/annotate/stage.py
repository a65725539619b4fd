"""Model actor: features to annotations. Windows packed under a token budget, one pass for all heads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from pipeline.annotate.arrays import column_of
from pipeline.annotate.checkpoints import CheckpointFiles
from pipeline.errors import ClipError, Code, Stage
from pipeline.features.windows import Window
from pipeline.spec import JobSpec, Task
from pipeline.table.schema import ANNOTATIONS
from pipeline.tasks.base import Clip, Head, Piece, Reading, Values
from pipeline.tasks.build import build_heads
from pipeline.tasks.decoding.files import DecodingFiles
from pipeline.tasks.diarize import DiarizationHead
from pipeline.tasks.embed import EmbeddingHead
from w2vbert.packing import Packed

_BUDGET_ON_CPU, _BUDGET_ON_GPU = 4096, 65536


@dataclass(frozen=True)
class WindowFeatures:
    """Features of one window of the clip in a row of the table: (frames, 160), a view of the row's."""

    row: int
    piece: Piece
    features: npt.NDArray[Any]


@dataclass
class _Progress:
    """A clip on its way through the heads."""

    clip: Clip
    readings: dict[Task, Reading]
    left: int  # windows to come
    seconds: float = 0.0
    values: Values = field(default_factory=dict)
    error: ClipError | None = None


class Annotator:
    """Holds models; called with tables of features, answers tables with annotations.

    Args:
        backbones: the checkpoints of each, by task; the first has the encoder. Encoders run in turn.
        decoding: lexicon and language model, where beam search has them.
        schema: of the tables it answers: the features among them where another backbone is to follow.
        threads: of the CPU.
        passes: an actor that counts how often the encoder ran.
    """

    def __init__(
        self,
        backbones: Sequence[Mapping[Task, ray.ObjectRef | CheckpointFiles]],
        spec: JobSpec,
        decoding: ray.ObjectRef | DecodingFiles,
        schema: pa.Schema,
        *,
        threads: int,
        passes: ray.actor.ActorHandle | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        lexica = decoding if isinstance(decoding, DecodingFiles) else ray.get(decoding)
        self._heads: list[dict[Task, Head]] = []
        for checkpoints in backbones:
            files = {
                task: held if isinstance(held, CheckpointFiles) else ray.get(held)
                for task, held in checkpoints.items()
            }
            self._heads.append(build_heads(files, spec, lexica, self._device))
        self._introduce()
        on_gpu = self._device.type == "cuda"
        self._budget = spec.token_budget or (_BUDGET_ON_GPU if on_gpu else _BUDGET_ON_CPU)
        self._dtype = getattr(torch, spec.dtype)
        self._width = next(iter(self._heads[0].values())).model.config.feature_projection_input_dim
        self._schema = schema
        self._only_embeds = list(spec.models) == [Task.EMBED]
        self._passes = passes

    def _introduce(self) -> None:
        """Lets diarization use the x-vector head where there is one, whatever its backbone."""
        heads = {task: head for of_one in self._heads for task, head in of_one.items()}
        diarization, voices = heads.get(Task.DIARIZE), heads.get(Task.EMBED)
        if isinstance(diarization, DiarizationHead) and isinstance(voices, EmbeddingHead):
            diarization.voices = voices if voices.stride == 1 else None

    def __call__(self, table: pa.Table) -> pa.Table:
        clips = self._clips(table)
        ran: list[int] = []
        for pack in packs(self._windows(table, clips), self._budget):
            self._annotate([window for window in pack if clips[window.row].error is None], clips, ran)
        if self._passes is not None and ran:
            self._passes.add.remote(len(ran) * len(self._heads), sum(ran) * len(self._heads))
        return self._table(table, clips)

    def _clips(self, table: pa.Table) -> dict[int, _Progress]:
        """What is to be annotated, by row; of silence there is nothing to compute."""
        clips = {}
        names = ("frames", "attended", "windows", "duration_s", "error")
        references = table["ref_text"] if "ref_text" in table.schema.names else pa.nulls(len(table))
        for row, (frames, attended, windows, duration_s, error) in enumerate(
            zip(*(table[name].to_pylist() for name in names), strict=True)
        ):
            if error is not None or not frames:
                continue
            reference = references[row].as_py()
            clip = Clip(
                frames,
                attended,
                tuple(Window(**window) for window in windows),
                duration_s,
                reference if isinstance(reference, str) else None,
            )
            progress = _Progress(clip, {}, len(clip.windows))
            clips[row] = progress
            if not clip.windows:
                self._finish(progress)
        return clips

    def _windows(self, table: pa.Table, clips: Mapping[int, _Progress]) -> Iterator[WindowFeatures]:
        features = table["features"]
        precision = np.float32 if self._dtype is torch.float32 else np.float16
        for row, progress in clips.items():
            if not progress.clip.windows:
                continue
            # A view into the table: a long recording's features are never copied as a whole.
            held = np.frombuffer(features[row].as_buffer(), precision)
            held = held.reshape(-1, self._width)
            for window in progress.clip.windows:
                yield WindowFeatures(
                    row, Piece(progress.clip, window), held[window.at : window.at + window.frames]
                )

    def _annotate(
        self, pack: Sequence[WindowFeatures], clips: Mapping[int, _Progress], ran: list[int]
    ) -> None:
        """One forward pass; on failure in halves, so that one clip's failure stays its own."""
        if not pack:
            return
        try:
            outputs, seconds = self._forward(pack)
        except Exception as problem:  # whatever the model raises must not cost the other clips
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if len(pack) > 1:
                half = len(pack) // 2
                self._annotate(pack[:half], clips, ran)
                self._annotate(pack[half:], clips, ran)
            else:
                clips[pack[0].row].error = _failure(problem)
            return
        ran.append(sum(len(window.features) for window in pack))
        for index, window in enumerate(pack):
            progress = clips[window.row]
            if progress.error is not None:
                continue
            progress.seconds += seconds * len(window.features)
            progress.left -= 1
            said = {task: of_pack[index] for task, of_pack in outputs.items()}
            try:
                with torch.inference_mode():
                    for reading in self._readings(progress).values():
                        reading.add(window.piece.window, said)
            except Exception as problem:
                progress.error = _failure(problem)
                continue
            if progress.left == 0:
                self._finish(progress)

    def _forward(self, pack: Sequence[WindowFeatures]) -> tuple[dict[Task, Sequence[Any]], float]:
        """What each head says of each window, and the seconds that a frame took."""
        started = time.perf_counter()
        frames = np.concatenate([window.features for window in pack])
        packed = Packed(
            torch.from_numpy(frames).to(self._device, self._dtype),
            tuple(len(window.features) for window in pack),
        )
        pieces = [window.piece for window in pack]
        num_valid = [max(1, piece.attended) for piece in pieces]
        outputs: dict[Task, Sequence[Any]] = {}
        with torch.inference_mode():
            for heads in self._heads:
                models = [head.model for head in heads.values()]
                every_state = any(model.needs_hidden_states for model in models)
                encoding = models[0].wav2vec2_bert.encode(
                    packed, num_valid=num_valid, output_hidden_states=every_state
                )
                outputs |= {task: head.outputs(encoding, pieces) for task, head in heads.items()}
        return outputs, (time.perf_counter() - started) / len(frames)

    def _readings(self, progress: _Progress) -> dict[Task, Reading]:
        if not progress.readings:
            progress.readings = {
                task: head.reading(progress.clip) for heads in self._heads for task, head in heads.items()
            }
        return progress.readings

    def _finish(self, progress: _Progress) -> None:
        try:
            with torch.inference_mode():
                found = [reading.finish() for reading in self._readings(progress).values()]
        except Exception as problem:
            progress.error = _failure(problem)
            return
        progress.readings = {}
        for values in found:
            progress.values |= values or {}
        if self._only_embeds and progress.clip.windows and not progress.values:
            progress.error = ClipError(
                Stage.ANNOTATE, Code.TOO_SHORT, f"{progress.clip.attended} frames are too few for an x-vector"
            )

    def _table(self, table: pa.Table, clips: Mapping[int, _Progress]) -> pa.Table:
        rows = [clips.get(row) for row in range(table.num_rows)]
        before = table["encoder_s"].to_pylist() if "encoder_s" in table.schema.names else [0.0] * len(rows)
        new: dict[str, Sequence[Any]] = {
            "error": [
                progress.error.as_row() if progress is not None and progress.error else given
                for progress, given in zip(rows, table["error"].to_pylist(), strict=True)
            ],
            "encoder_s": [
                spent + (progress.seconds if progress is not None else 0.0)
                for progress, spent in zip(rows, before, strict=True)
            ],
        }
        failed = pa.array([error is not None for error in new["error"]], pa.bool_())
        columns = []
        for column in self._schema:
            if column.name in new:
                columns.append(pa.array(new[column.name], column.type))
            elif column.name in ANNOTATIONS and column.name in table.schema.names:
                columns.append(pc.if_else(failed, pa.scalar(None, column.type), table[column.name]))
            elif column.name in table.schema.names:
                columns.append(table[column.name].cast(column.type))
            else:
                values = [
                    progress.values.get(column.name) if progress is not None and not progress.error else None
                    for progress in rows
                ]
                columns.append(column_of(values, column.type))
        return pa.Table.from_arrays(columns, schema=self._schema)


def packs(windows: Iterable[WindowFeatures], budget: int) -> Iterator[list[WindowFeatures]]:
    """Windows of similar length together, at most `budget` frames a pack; a longer one goes alone.

    The windows of one clip stay in their order, so that each can be summed up when it comes.
    """
    longest: dict[int, int] = {}
    held = list(windows)
    for window in held:
        longest[window.row] = max(longest.get(window.row, 0), len(window.features))
    pack: list[WindowFeatures] = []
    frames = 0
    # Sorting is stable: in a row, windows stay in order.
    for window in sorted(held, key=lambda window: (longest[window.row], window.row)):
        if pack and frames + len(window.features) > budget:
            yield pack
            pack, frames = [], 0
        pack.append(window)
        frames += len(window.features)
    if pack:
        yield pack


def _failure(problem: Exception) -> ClipError:
    if isinstance(problem, FloatingPointError):
        return ClipError(Stage.ANNOTATE, Code.MODEL_FAILED, str(problem))
    memory = isinstance(problem, torch.OutOfMemoryError | MemoryError) or "alloc" in str(problem)
    code = Code.OUT_OF_MEMORY if memory else Code.MODEL_FAILED
    return ClipError(Stage.ANNOTATE, code, f"{type(problem).__name__}: {problem}"[:500])
