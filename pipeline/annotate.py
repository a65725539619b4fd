"""Model actor: features to annotations. Whole clips, packed by length under a token budget."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
import torch

from pipeline.errors import ClipError, Code, Stage
from pipeline.models import CheckpointFiles
from pipeline.schema import output_schema
from w2vbert.ctc import Transcript, best_path, read_path, seconds_per_frame
from w2vbert.heads import Wav2Vec2BertForCTC
from w2vbert.packing import Packed
from w2vbert.processor import Wav2Vec2BertProcessor

_BUDGET_ON_CPU, _BUDGET_ON_GPU = 4096, 65536


@dataclass(frozen=True)
class _Clip:
    """Features of one clip: (frames, 160); attention sees the first `attended` frames."""

    row: int
    features: npt.NDArray[Any]
    attended: int


@dataclass(frozen=True)
class Result:
    """What became of one clip: a transcript or an error, and the model seconds it took."""

    transcript: Transcript | None = None
    error: ClipError | None = None
    seconds: float = 0.0


SILENCE = Result(Transcript("", (), None))


class Annotator:
    """Holds the model; called with tables of `feature_schema`, answers tables of `output_schema`."""

    def __init__(
        self,
        checkpoint: ray.ObjectRef | CheckpointFiles,
        carried: pa.Schema,
        *,
        dtype: str,
        token_budget: int | None,
        threads: int,
        metadata: dict[str, str],
    ) -> None:
        torch.set_num_threads(threads)
        files = checkpoint if isinstance(checkpoint, CheckpointFiles) else ray.get(checkpoint)
        directory = files.directory()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._dtype = getattr(torch, dtype)
        self._model = Wav2Vec2BertForCTC.from_pretrained(directory, dtype=self._dtype, device=self._device)
        self._tokenizer = Wav2Vec2BertProcessor.from_pretrained(directory).tokenizer
        self._frame_s = seconds_per_frame(self._model.config)
        on_gpu = self._device.type == "cuda"
        self._budget = token_budget or (_BUDGET_ON_GPU if on_gpu else _BUDGET_ON_CPU)
        self._schema = output_schema(carried).with_metadata(metadata)

    def __call__(self, table: pa.Table) -> pa.Table:
        results: dict[int, Result] = {}
        for pack in pack_by_length(self._clips(table, results), self._budget):
            results |= self._annotate(pack)
        return self._as_table(table, [results.get(row, Result()) for row in range(table.num_rows)])

    def _clips(self, table: pa.Table, results: dict[int, Result]) -> Iterator[_Clip]:
        columns = [table[name].to_pylist() for name in ("frames", "attended", "silent")]
        features = table["features"]
        precision = np.float32 if self._dtype is torch.float32 else np.float16
        for row, (frames, attended, silent) in enumerate(zip(*columns, strict=True)):
            if silent:
                results[row] = SILENCE
            elif frames:
                buffer = features[row].as_buffer()
                yield _Clip(row, np.frombuffer(buffer, precision).reshape(frames, -1), attended)

    def _annotate(self, pack: Sequence[_Clip]) -> dict[int, Result]:
        """One forward pass; on failure in halves, so that one clip's failure stays its own."""
        try:
            return self._forward(pack)
        except Exception as problem:  # whatever the model raises must not cost the other clips
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            if len(pack) > 1:
                half = len(pack) // 2
                return self._annotate(pack[:half]) | self._annotate(pack[half:])
            memory = isinstance(problem, torch.OutOfMemoryError | MemoryError) or "alloc" in str(problem)
            code = Code.OUT_OF_MEMORY if memory else Code.MODEL_FAILED
            error = ClipError(Stage.ANNOTATE, code, f"{type(problem).__name__}: {problem}"[:500])
            return {pack[0].row: Result(error=error)}

    def _forward(self, pack: Sequence[_Clip]) -> dict[int, Result]:
        started = time.perf_counter()
        frames = np.concatenate([clip.features for clip in pack])
        packed = Packed(
            torch.from_numpy(frames).to(self._device, self._dtype), tuple(len(clip.features) for clip in pack)
        )
        with torch.inference_mode():
            encoding = self._model.wav2vec2_bert.encode(packed, attended=[clip.attended for clip in pack])
            logits = self._model.frame_logits(encoding)
            ids, posteriors = best_path(logits.frames)
        paths = ids.cpu().numpy(), posteriors.cpu().numpy()
        seconds = (time.perf_counter() - started) / len(frames)
        results = {}
        ends = np.cumsum(logits.lengths)
        for clip, end, length in zip(pack, ends, logits.lengths, strict=True):
            path, posterior = (array[end - length : end] for array in paths)
            cost = seconds * len(clip.features)
            if np.isfinite(posterior).all():
                transcript = read_path(path, posterior, self._tokenizer)
                results[clip.row] = Result(transcript, seconds=cost)
            else:
                error = ClipError(
                    Stage.ANNOTATE, Code.MODEL_FAILED, "the model gave numbers that are not finite"
                )
                results[clip.row] = Result(error=error, seconds=cost)
        return results

    def _as_table(self, table: pa.Table, results: Sequence[Result]) -> pa.Table:
        transcripts = [result.transcript for result in results]
        new = {
            "error": [
                result.error.as_row() if result.error else given
                for result, given in zip(results, table["error"].to_pylist(), strict=True)
            ],
            "text": [transcript.text if transcript else None for transcript in transcripts],
            "text_confidence": [transcript.confidence if transcript else None for transcript in transcripts],
            "words": [self._words(transcript) if transcript else None for transcript in transcripts],
            "encoder_s": [result.seconds for result in results],
        }
        columns = [
            pa.array(new[field.name], field.type) if field.name in new else table[field.name].cast(field.type)
            for field in self._schema
        ]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _words(self, transcript: Transcript) -> list[dict[str, Any]]:
        return [
            {
                "word": word.word,
                "start_s": word.start_frame * self._frame_s,
                "end_s": word.end_frame * self._frame_s,
                "confidence": word.confidence,
            }
            for word in transcript.words
        ]


def pack_by_length(clips: Iterable[_Clip], budget: int) -> Iterator[list[_Clip]]:
    """Clips of similar length together, at most `budget` frames a pack; a longer clip goes alone."""
    pack: list[_Clip] = []
    frames = 0
    for clip in sorted(clips, key=lambda clip: len(clip.features)):
        if pack and frames + len(clip.features) > budget:
            yield pack
            pack, frames = [], 0
        pack.append(clip)
        frames += len(clip.features)
    if pack:
        yield pack
