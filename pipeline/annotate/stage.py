"""The annotate stage: features to annotations. Windows are packed under a token budget, and the encoder runs
once over a pack for all heads of its backbone. Nothing here knows Ray."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.annotate.arrays import column_of
from pipeline.annotate.devices import (
    device_lost,
    load_errors,
    open_device,
    says_out_of_memory,
)
from pipeline.annotate.heads import AnnotatorSettings, Checkpoints, build_heads
from pipeline.annotate.packs import WindowFeatures, packs
from pipeline.errors import ClipError, Code, DeviceLostError, Stage
from pipeline.features.windows import Window
from pipeline.schema import annotations_of
from pipeline.tasks.base import Accumulator, ClipFrames, PackedWindow, Values
from w2vbert.packing import Packed

_BUDGET_ON_CPU, _BUDGET_ON_GPU = 4096, 65536


@dataclass
class _Progress:
    """A clip on its way through the heads."""

    clip: ClipFrames
    left: int  # windows to come
    accumulators: list[Accumulator] = field(default_factory=list)
    seconds: float = 0.0
    values: Values = field(default_factory=dict)
    error: ClipError | None = None
    overflowed: bool = False  # numbers that are not finite, in half precision perhaps alone


@dataclass(frozen=True)
class _Problem:
    """What failed, as the clips' error."""

    error: ClipError
    overflow: bool = False

    def of(self, progress: _Progress) -> None:
        progress.error, progress.overflowed = self.error, self.overflow
        progress.accumulators = []


class Annotator:
    """Holds models; called with a table of features, answers with the table of annotations.

    Args:
        backbones: the checkpoints of each, by task; the first has the encoder. Encoders run in turn.
        settings: of the job.
        schema: of the tables it answers: the features among them where another backbone is to follow.
        report: called after each pack with the encoder passes and the frames that they ran over.

    Raises:
        JobError: the device cannot be used, or the models do not fit it.
    """

    def __init__(
        self,
        backbones: Sequence[Checkpoints],
        settings: AnnotatorSettings,
        schema: pa.Schema,
        report: Callable[[int, int], None] | None = None,
    ) -> None:
        torch.set_num_threads(settings.threads)
        self._device = open_device(settings.device)
        with load_errors(self._device):
            self._heads = build_heads(backbones, settings, self._device)
        on_gpu = self._device.type == "cuda"
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = True  # of float32, which is many times slower without
        self._budget = settings.token_budget or (_BUDGET_ON_GPU if on_gpu else _BUDGET_ON_CPU)
        self._dtype = getattr(torch, settings.dtype)
        self._stored = np.float32 if self._dtype is torch.float32 else np.float16
        self._width = next(iter(self._heads[0].values())).model.config.feature_projection_input_dim
        self._schema = schema
        self._annotations = annotations_of(schema)
        self._report = report
        held = {name for heads in self._heads for name in heads}
        # A clip of which no head says anything is an error, as far as this actor has all heads of the job.
        self._makes = " or ".join(task.makes for task in settings.tasks.values())
        self._has_all = held == set(settings.tasks)
        self._reads = {name for task in settings.tasks.values() for name in task.reads}

    def __call__(self, table: pa.Table) -> pa.Table:
        """
        Raises:
            DeviceLostError: only another process can go on; the table is to be annotated again, all of it.
        """
        clips = self._clips(table)
        for pack in packs(self._windows(table, clips), self._budget):
            self._annotate(pack, clips)
        overflowed = [row for row, progress in clips.items() if progress.overflowed]
        if overflowed and self._dtype is not torch.float32:
            self._annotate_in_float32(overflowed, table, clips)
        return self._table(table, clips)

    def _clips(self, table: pa.Table) -> dict[int, _Progress]:
        """What is to be annotated, by row; of silence there is nothing to compute."""
        clips = {}
        names = ("frames", "num_valid", "windows", "duration_s", "error")
        passthrough = {name: table[name] for name in self._reads if name in table.schema.names}
        for row, (frames, num_valid, windows, duration_s, error) in enumerate(
            zip(*(table[name].to_pylist() for name in names), strict=True)
        ):
            if error is not None or not frames:
                continue
            clip = ClipFrames(
                frames,
                num_valid,
                tuple(Window(**window) for window in windows),
                duration_s,
                {name: column[row].as_py() for name, column in passthrough.items()},
            )
            progress = _Progress(clip, len(clip.windows))
            clips[row] = progress
            if not clip.windows:
                self._finish(progress)
        return clips

    def _windows(self, table: pa.Table, clips: Mapping[int, _Progress]) -> Iterator[WindowFeatures]:
        features = table["features"]
        for row, progress in clips.items():
            if not progress.clip.windows:
                continue
            # A view into the table: a long recording's features are never copied as a whole.
            held = np.frombuffer(features[row].as_buffer(), self._stored)
            held = held.reshape(-1, self._width)
            for window in progress.clip.windows:
                features_of_window = held[window.at : window.at + window.frames]
                yield WindowFeatures(row, PackedWindow(progress.clip, window), features_of_window)

    def _annotate(self, pack: Sequence[WindowFeatures], clips: Mapping[int, _Progress]) -> None:
        """One forward pass; on failure in halves, so that one clip's failure stays its own."""
        pack = [window for window in pack if clips[window.row].error is None]
        frames = sum(len(window.features) for window in pack)
        if not pack:
            return
        if len(pack) == 1 or frames <= self._budget:  # which an earlier pack may have lowered
            problem = self._pass(pack, clips)
            if problem is None:
                return
            self._free()  # here, where nothing holds what the failed pass computed
            if len(pack) == 1:
                problem.of(clips[pack[0].row])
                return
            if problem.error.code is Code.OUT_OF_MEMORY:
                self._budget = frames // 2
        half = len(pack) // 2
        self._annotate(pack[:half], clips)
        self._annotate(pack[half:], clips)

    def _pass(self, pack: Sequence[WindowFeatures], clips: Mapping[int, _Progress]) -> _Problem | None:
        """Runs the encoders over a pack and sums up what the heads say; what went wrong for all of it."""
        try:
            outputs, seconds = self._forward(pack)
        except Exception as problem:  # whatever the model raises must not cost the other clips
            return self._problem(problem)
        if self._report is not None:
            frames = sum(len(window.features) for window in pack)
            self._report(len(self._heads), frames * len(self._heads))
        for index, window in enumerate(pack):
            progress = clips[window.row]
            if progress.error is not None:
                continue
            progress.seconds += seconds * len(window.features)
            progress.left -= 1
            of_window = {task: of_pack[index] for task, of_pack in outputs.items()}
            try:
                with torch.inference_mode():
                    for accumulator in self._accumulators(progress):
                        accumulator.add(window.packed.window, of_window)
            except Exception as problem:
                self._problem(problem).of(progress)
                continue
            if progress.left == 0:
                self._finish(progress)
        return None

    def _annotate_in_float32(self, rows: Sequence[int], table: pa.Table, clips: dict[int, _Progress]) -> None:
        """Clips that overflowed half precision, once more, each by itself; an error stays where it fails."""
        try:
            with self._float32():
                for row in rows:
                    clip, spent = clips[row].clip, clips[row].seconds
                    again = {row: _Progress(clip, len(clip.windows), seconds=spent)}
                    for window in self._windows(table, again):
                        self._annotate([window], again)
                    if again[row].error is None:
                        clips[row] = again[row]
        except Exception as problem:
            self._problem(problem)
            self._free()

    @contextmanager
    def _float32(self) -> Iterator[None]:
        """The models in float32, and after that as they were."""
        models = [head.model for heads in self._heads for head in heads.values()]
        tensors = {
            id(tensor): tensor for model in models for tensor in (*model.parameters(), *model.buffers())
        }
        half = [(tensor, tensor.data) for tensor in tensors.values() if tensor.is_floating_point()]
        dtype, self._dtype = self._dtype, torch.float32
        try:
            for tensor, data in half:
                tensor.data = data.float()
            yield
        finally:
            self._dtype = dtype
            for tensor, data in half:
                tensor.data = data

    def _problem(self, problem: Exception) -> _Problem:
        """What a failure means for its clips.

        Raises:
            DeviceLostError: it is none of theirs.
        """
        if isinstance(problem, DeviceLostError):
            raise problem
        said = f"{type(problem).__name__}: {problem}"[:500]
        if device_lost(problem, self._device):
            raise DeviceLostError(said) from problem
        if isinstance(problem, FloatingPointError):
            return _Problem(ClipError(Stage.ANNOTATE, Code.MODEL_FAILED, str(problem)), overflow=True)
        code = Code.OUT_OF_MEMORY if says_out_of_memory(problem) else Code.MODEL_FAILED
        return _Problem(ClipError(Stage.ANNOTATE, code, said))

    def _free(self) -> None:
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, pack: Sequence[WindowFeatures]) -> tuple[dict[str, Sequence[Any]], float]:
        """The outputs of each head for each window, and the seconds that a frame took."""
        started = time.perf_counter()
        frames = np.concatenate([window.features for window in pack])
        packed = Packed(
            torch.from_numpy(frames).to(self._device, self._dtype),
            tuple(len(window.features) for window in pack),
        )
        windows = [window.packed for window in pack]
        num_valid = [max(1, window.num_valid) for window in windows]
        outputs: dict[str, Sequence[Any]] = {}
        with torch.inference_mode():
            for heads in self._heads:
                models = [head.model for head in heads.values()]
                every_state = any(getattr(model, "needs_hidden_states", False) for model in models)
                encoder: Any = models[0].base_model
                encoding = encoder.encode(packed, num_valid=num_valid, output_hidden_states=every_state)
                outputs |= {task: head.outputs(encoding, windows) for task, head in heads.items()}
        return outputs, (time.perf_counter() - started) / len(frames)

    def _accumulators(self, progress: _Progress) -> list[Accumulator]:
        if not progress.accumulators:
            progress.accumulators = [
                head.accumulator(progress.clip) for heads in self._heads for head in heads.values()
            ]
        return progress.accumulators

    def _finish(self, progress: _Progress) -> None:
        try:
            with torch.inference_mode():
                found = [accumulator.finish() for accumulator in self._accumulators(progress)]
        except Exception as problem:
            self._problem(problem).of(progress)
            return
        progress.accumulators = []
        for values in found:
            progress.values |= values or {}
        if self._has_all and progress.clip.windows and not progress.values:
            reason = f"{progress.clip.num_valid} frames are too few for {self._makes}"
            progress.error = ClipError(Stage.ANNOTATE, Code.TOO_SHORT, reason)

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
            elif column.name in self._annotations and column.name in table.schema.names:
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
