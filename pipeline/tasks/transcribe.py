"""Transcripts: the best path of every window, stitched where neighbouring windows agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.features.windows import Window
from pipeline.metrics.words import WordErrors
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage
from pipeline.tasks.base import ClipFrames, HeadParts, PackedWindow, Task, TaskFiles, Values, model_stride
from pipeline.tasks.decoding.options import TranscriptOptions

if TYPE_CHECKING:
    from w2vbert.decoding.greedy import Transcript, Word
    from w2vbert.heads import Wav2Vec2BertForCTC
    from w2vbert.model import Encoding

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_REFERENCE = "ref_text"  # the text that came with a clip
_ENOUGH_S = 0.2  # of frames that agree on both sides of a seam
_IMPOSSIBLE = -100.0  # logit of all but the blank where no window looks

WORD = pa.struct(
    [("word", pa.string()), ("start_s", pa.float32()), ("end_s", pa.float32()), ("confidence", pa.float32())]
)
TRANSCRIPT_COLUMNS: dict[str, pa.DataType] = {
    "text": pa.string(),
    "text_confidence": pa.float32(),
    "words": pa.list_(WORD),
}
NBEST_COLUMNS: dict[str, pa.DataType] = {
    "nbest": pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())])),
}
ALIGNMENT_COLUMNS: dict[str, pa.DataType] = {
    "aligned_words": pa.list_(WORD),
    "alignment_score": pa.float32(),
}


@dataclass(frozen=True)
class _Path:
    """The best path of a window, and its logits where the decoder wants them."""

    ids: Ids
    posteriors: Floats
    logits: Floats | None


class TranscriptHead:
    """Wav2Vec2BertForCTC with a decoder."""

    def __init__(self, parts: HeadParts) -> None:
        from pipeline.tasks.decoding.decoder import Decoder
        from w2vbert.processor import Wav2Vec2BertProcessor

        self.model: Wav2Vec2BertForCTC = parts.model
        self.tokenizer = Wav2Vec2BertProcessor.from_pretrained(parts.checkpoint.settings()).tokenizer
        self.decoder = Decoder(parts.options, parts.files, self.tokenizer, parts.device)
        self.stride = model_stride(self.model)
        self.frame_s = parts.frame_s * self.stride
        self.enough = round(_ENOUGH_S / parts.frame_s)
        self.delimiter = self.tokenizer.word_delimiter_token_id

    def outputs(self, encoding: Encoding, windows: Sequence[PackedWindow]) -> Sequence[_Path]:
        from w2vbert.decoding.greedy import best_path

        logits = self.model.frame_logits(encoding)
        ids, posteriors = (tensor.cpu().numpy() for tensor in best_path(logits.frames))
        kept = logits.frames.float().cpu().numpy() if self.decoder.needs_logits else None
        offsets = logits.offsets
        return [
            _Path(ids[start:stop], posteriors[start:stop], None if kept is None else kept[start:stop])
            for start, stop in pairwise(offsets)
        ]

    def accumulator(self, clip: ClipFrames) -> TranscriptAccumulator:
        return TranscriptAccumulator(self, clip)


class TranscriptAccumulator:
    """The path of a clip: that of its windows, with the blank where none of them looks."""

    def __init__(self, head: TranscriptHead, clip: ClipFrames) -> None:
        self._head, self._clip = head, clip
        frames = head.model.frame_lengths((clip.frames,))[0]
        self._ids = np.full(frames, head.model.blank, np.int64)
        self._posteriors = np.ones(frames, np.float32)
        self._logits: Floats | None = None
        if head.decoder.needs_logits:
            self._logits = np.full((frames, head.model.lm_head.out_features), _IMPOSSIBLE, np.float32)
            self._logits[:, head.model.blank] = 0.0
        self._end = 0

    def add(self, window: Window, outputs: Mapping[str, Any]) -> None:
        path: _Path = outputs[TASK.name]
        if not np.isfinite(path.posteriors).all():
            raise FloatingPointError("the model gave numbers that are not finite")
        start = window.start // self._head.stride
        stop = start + len(path.ids)
        first = start
        if start < self._end:
            first += best_seam(
                self._ids[start : self._end], path.ids[: self._end - start], enough=self._head.enough
            )
        elif start > self._end > 0:
            self._part_words(path.ids)
        self._ids[first:stop] = path.ids[first - start :]
        self._posteriors[first:stop] = path.posteriors[first - start :]
        if self._logits is not None and path.logits is not None:
            self._logits[first:stop] = path.logits[first - start :]
        self._end = stop

    def _part_words(self, following: Ids) -> None:
        """Ends the word before a gap: two segments of speech never make one word."""
        blank, delimiter = self._head.model.blank, self._head.delimiter
        if delimiter is None:
            return
        before, after = self._ids[: self._end], following[following != blank]
        before = before[before != blank]
        if len(before) and len(after) and before[-1] != delimiter != after[0]:
            self._ids[self._end] = delimiter
            if self._logits is not None:
                self._logits[self._end] = _IMPOSSIBLE
                self._logits[self._end, delimiter] = 0.0

    def finish(self) -> Values:
        import torch

        from w2vbert.decoding.greedy import read_path

        head = self._head
        if self._logits is None:
            return self._values(read_path(self._ids, self._posteriors, head.tokenizer))
        logits = torch.from_numpy(self._logits).to(head.model.device)
        hypotheses = head.decoder.read(logits)
        values = self._values(hypotheses[0].transcript)
        values["nbest"] = [{"text": found.transcript.text, "score": found.score} for found in hypotheses]
        reference = self._clip.passthrough.get(_REFERENCE)
        reference = reference if isinstance(reference, str) else None
        if head.decoder.aligns and (aligned := head.decoder.align(logits, reference)) is not None:
            values["aligned_words"] = word_rows(aligned.words, head.frame_s)
            values["alignment_score"] = aligned.score
        return values

    def _values(self, transcript: Transcript) -> Values:
        return {
            "text": transcript.text,
            "text_confidence": transcript.confidence,
            "words": word_rows(transcript.words, self._head.frame_s),
        }


def word_rows(words: Sequence[Word], frame_s: float) -> list[dict[str, Any]]:
    """Entries of the `words` column."""
    return [
        {
            "word": word.word,
            "start_s": word.start_frame * frame_s,
            "end_s": word.end_frame * frame_s,
            "confidence": word.confidence,
        }
        for word in words
    ]


def best_seam(before: Ids, after: Ids, *, enough: int) -> int:
    """Where to go over from one window's path to the next one's, which both cover these frames.

    Both windows hear the same words there, but each sees one side better and may emit a token some frames
    earlier or later. At a seam where the two agree on both sides no token is lost or doubled; of the places
    that agree well enough, the one nearest to the middle leaves both windows the most context.

    Args:
        before, after: (n,) ids of the two paths.
        enough: frames that agree on both sides of a seam; more are no better.

    Returns:
        0 to n: frames before it are the first path's.
    """
    n = len(before)
    agree = np.zeros(n + 2, bool)
    agree[1:-1] = before == after
    frames = np.arange(n + 2)
    breaks_before = np.maximum.accumulate(np.where(agree, 0, frames))
    breaks_after = np.minimum.accumulate(np.where(agree, n + 1, frames)[::-1])[::-1]
    # A seam at i lies between the frames i - 1 and i, which `agree` has at i and i + 1.
    seams = np.arange(n + 1)
    run_before = seams - breaks_before[seams]
    run_after = breaks_after[seams + 1] - (seams + 1)
    agreement = np.minimum(np.minimum(run_before, run_after), enough)
    return int(np.lexsort((np.abs(2 * seams - n), -agreement))[0])


def _model() -> type[Wav2Vec2BertForCTC]:
    from w2vbert.heads import Wav2Vec2BertForCTC

    return Wav2Vec2BertForCTC


def _columns(options: TranscriptOptions, config: Any) -> dict[str, pa.DataType]:
    nbest = NBEST_COLUMNS if options.nbest > 1 else {}
    return TRANSCRIPT_COLUMNS | nbest | (ALIGNMENT_COLUMNS if options.align else {})


def _check(checkpoint: CheckpointFiles, model: Any) -> str | None:
    from w2vbert.processor import Wav2Vec2BertProcessor

    if "vocab.json" not in checkpoint.files:
        return "no vocab.json there; transcribing needs a CTC checkpoint's vocabulary."
    Wav2Vec2BertProcessor.from_pretrained(checkpoint.settings())  # raises where they do not fit together
    return None


def _read_files(options: TranscriptOptions, checkpoint: CheckpointFiles, storage: Storage) -> TaskFiles:
    """Lexicon and language model."""
    from pipeline.tasks.decoding.files import read_decoding_files
    from w2vbert.processor import Wav2Vec2BertProcessor

    tokenizer = Wav2Vec2BertProcessor.from_pretrained(checkpoint.settings()).tokenizer
    return read_decoding_files(options, tokenizer, storage)


def _metric(options: TranscriptOptions, storage: Storage) -> WordErrors:
    return WordErrors()


TASK = Task(
    name="transcribe",
    does="transcribes",
    about="Transcribe a speech corpus: audio shards in, a Parquet table of transcripts out.",
    makes="a transcript",
    model=_model,
    options=TranscriptOptions,
    columns=_columns,
    column_names=frozenset({*TRANSCRIPT_COLUMNS, *NBEST_COLUMNS, *ALIGNMENT_COLUMNS}),
    check=_check,
    read_files=_read_files,
    head=TranscriptHead,
    metric=_metric,
    reads=(_REFERENCE,),
)
