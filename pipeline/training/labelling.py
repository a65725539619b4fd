"""What a run learns from: rows of feature tables, the labels of its tasks, and the indices of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError
from pipeline.metrics.rttm import Marks, read_rttm
from pipeline.node_files import CheckpointFiles
from pipeline.storage import Storage
from pipeline.training.examples.building import Built, Limits, build_index
from pipeline.training.examples.frames import minimum_frames
from pipeline.training.examples.labels import Labeller, Reason
from pipeline.training.examples.labels.classes import (
    Classify,
    Embed,
    classes,
    distinct,
    speakers,
    to_learn,
)
from pipeline.training.examples.labels.diarize import Diarize
from pipeline.training.examples.labels.transcribe import Transcribe
from pipeline.training.examples.rows import Rows
from pipeline.training.examples.text import TextSettings, normalise
from pipeline.training.examples.vocabulary import Vocabulary, count_characters
from pipeline.training.model.objectives import OBJECTIVES
from pipeline.training.spec import FinetuneSpec

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig
    from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

_SHOWN = 5  # names of speakers


@dataclass(frozen=True)
class Labelled:
    """What a run learns from.

    Attributes:
        train, valid: the examples, and the rows that are none; `valid` None: nothing to validate on.
        skipped: of both, the rows that are none: see `Built`.
        rows: of the training tables, clips times speeds.
        validation: where the validation clips come from, for a person.
        heads: by task, the fields of the configuration for its head.
        texts: by clip id, what is said, as far as it is known.
    """

    train: Built
    valid: Built | None
    skipped: pa.Table
    rows: int
    validation: str
    heads: Mapping[str, Mapping[str, Any]]
    tokenizer: Wav2Vec2CTCTokenizer | None
    vocabulary: Vocabulary | None
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Start:
    """What training starts from.

    Attributes:
        config: with the fields that are to be set.
        files: of the checkpoint; None: random weights.
    """

    config: Wav2Vec2BertConfig
    files: CheckpointFiles | None

    def has_head(self, task: str) -> bool:
        """Whether it is a checkpoint of this task."""
        return self.files is not None and OBJECTIVES[task].model.__name__ in (self.config.architectures or ())


def label(
    spec: FinetuneSpec,
    start: Start,
    train: Sequence[str],
    valid: Sequence[str],
    storage: Storage,
    frame_s: float,
) -> Labelled:
    """Reads the clips' own columns, and makes labels for the tasks of them.

    Args:
        train, valid: URIs of the feature tables' files; `valid` empty: a share of the training clips is held
            out.

    Raises:
        JobError: a column or a file is missing, or nothing can be learned from.
    """
    return _Labelling(spec, start, storage, frame_s).of(train, valid)


class _Labelling:
    def __init__(self, spec: FinetuneSpec, start: Start, storage: Storage, frame_s: float) -> None:
        self._spec, self._start, self._storage, self._frame_s = spec, start, storage, frame_s
        self._text = TextSettings(spec.data.lower_case, spec.data.remove_characters)
        self._heads: dict[str, dict[str, Any]] = {}
        self._tokenizer: Wav2Vec2CTCTokenizer | None = None
        self._vocabulary: Vocabulary | None = None
        self._marks: dict[str, Marks] = {}

    def of(self, train: Sequence[str], valid: Sequence[str]) -> Labelled:
        data = self._spec.data
        rows = self._rows(train)
        if valid:
            held_out, validation = self._rows(valid), ", ".join(data.valid)
        else:
            rows, held_out = rows.split(data.valid_share, data.speaker_column)
            held_out = held_out.once()
            validation = _held_out(rows, held_out, data.speaker_column)
        limits = Limits(data.min_duration_s, data.max_duration_s, minimum_frames(self._start.config))
        makers: dict[str, Callable[[Rows], Labeller]] = {
            "transcribe": self._transcribe,
            "classify": self._classify,
            "diarize": self._diarize,
            "embed": self._embed,
        }
        train_labels = {task: makers[task](rows) for task in self._spec.tasks}
        built = build_index(rows, train_labels, limits)
        _require_examples("--train", built, rows)
        _require_targets(built)
        valid_labels = {task: self._measured(each, held_out) for task, each in train_labels.items()}
        built_valid = build_index(held_out, valid_labels, limits)
        if valid:
            _require_examples("--valid", built_valid, held_out)
        return Labelled(
            built,
            built_valid if len(built_valid.index) else None,
            pa.concat_tables([built.skipped, built_valid.skipped]),
            len(rows),
            validation,
            self._heads,
            self._tokenizer,
            self._vocabulary,
            self._texts(rows),
        )

    def _rows(self, files: Sequence[str]) -> Rows:
        """The clips with the columns that the tasks need, and with text and speaker where these are known."""
        data, tasks = self._spec.data, self._spec.tasks
        columns = {
            "transcribe": data.text_column,
            "classify": data.label_column,
            "embed": data.speaker_column,
        }
        needed = dict.fromkeys(columns[task] for task in tasks if task in columns)
        return Rows.read(files, self._storage, [*needed], optional=(data.text_column, data.speaker_column))

    def _keeps_head(self, task: str) -> bool:
        return not self._spec.model.new_heads and self._start.has_head(task)

    def _measured(self, labeller: Labeller, held_out: Rows) -> Labeller:
        """What validation clips are labelled by: voices that nothing was learned of have numbers too."""
        if not isinstance(labeller, Embed):
            return labeller
        known = set(labeller.names)
        others = [name for name in distinct(speakers(held_out.table, labeller.column)) if name not in known]
        return replace(labeller, names=[*labeller.names, *others])

    def _transcribe(self, rows: Rows) -> Transcribe:
        data, files = self._spec.data, self._start.files
        column = data.text_column
        texts = (text for text in rows.once().table[column].to_pylist() if text is not None)
        counts = count_characters(normalise(text, self._text) for text in texts)
        keeps = data.vocab is None and self._keeps_head("transcribe")
        if keeps and files is not None and "vocab.json" in files.files:
            from w2vbert.processor import Wav2Vec2BertProcessor

            tokenizer = Wav2Vec2BertProcessor.from_pretrained(files.settings()).tokenizer
            self._vocabulary = Vocabulary(tokenizer.get_vocab(), counts)
        else:
            if data.vocab is not None:
                place = self._storage.normalise(data.vocab)
                self._vocabulary = Vocabulary.read(place, self._storage, counts)
            else:
                self._vocabulary = Vocabulary.made(counts, data.min_char_count)
            tokenizer = self._vocabulary.tokenizer()
        self._tokenizer = tokenizer
        special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None, "eos_token_id": None}
        self._heads["transcribe"] = {"vocab_size": len(tokenizer), **special}
        return Transcribe(column, self._text, tokenizer, self._start.config)

    def _classify(self, rows: Rows) -> Classify:
        column, config = self._spec.data.label_column, self._start.config
        names = to_learn(classes(rows.table, column), column)
        if self._keeps_head("classify") and config.id2label:
            held = [name for _, name in sorted(config.id2label.items())]
            if set(names) <= set(held):
                names = held
        self._heads["classify"] = _labels(names)
        return Classify(column, names)

    def _embed(self, rows: Rows) -> Embed:
        column = self._spec.data.speaker_column
        names = to_learn(speakers(rows.table, column), column)
        self._heads["embed"] = {"num_labels": len(names)}
        return Embed(column, names, self._start.config)

    def _diarize(self, rows: Rows) -> Diarize:
        for uri in self._spec.data.rttm:
            marks = read_rttm("--rttm", self._storage.normalise(uri), self._storage)
            if twice := sorted(marks.keys() & self._marks.keys()):
                raise JobError(
                    f"--rttm {uri}: {twice[0]} is in another RTTM file too. Name each recording in one."
                )
            self._marks |= marks
        most = max(len({segment.speaker for segment in marks.segments}) for marks in self._marks.values())
        if self._keeps_head("diarize"):
            most = max(most, self._start.config.num_labels)
        speakers = max(2, most)
        self._heads["diarize"] = _labels([f"speaker_{number}" for number in range(speakers)])
        return Diarize(self._marks, speakers, self._frame_s)

    def _texts(self, rows: Rows) -> dict[str, str]:
        column = self._spec.data.text_column
        if column not in rows.table.column_names:
            return {}
        once = rows.once().table
        pairs = zip(once["clip.id"].to_pylist(), once[column].to_pylist(), strict=True)
        return {clip_id: text for clip_id, text in pairs if text is not None}


def _held_out(rows: Rows, held_out: Rows, speaker_column: str) -> str:
    """Who is held out, or how many clips, where these were not chosen by their speakers."""
    names, others = held_out.names(speaker_column), rows.names(speaker_column)
    if not names or names & others:
        return f"held out of --train, {len(held_out):,} of {len(held_out) + len(rows.once()):,} clips"
    shown = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"held out of --train, {len(names):,} of {len(names | others):,} speakers ({shown})"


def _require_examples(flag: str, built: Built, rows: Rows) -> None:
    if not len(built.index):
        raise JobError(f"{flag}: none of its {len(rows):,} clips can be used: {_reasons(built.skipped)}")


def _require_targets(built: Built) -> None:
    """A head that nothing teaches would be published as it was drawn."""
    for task, targets in built.index.targets.items():
        if not targets.has.any():
            of_task = built.skipped.filter(pc.equal(built.skipped["task"], task))
            raise JobError(f"--train: none of its clips can be used for {task}: {_reasons(of_task)}")


def _reasons(skipped: pa.Table) -> str:
    """Each with the first clip that has it."""
    first = {row["reason"]: row for row in reversed(skipped.to_pylist())}
    told = [f"{reason} ({first[reason]['detail'] or first[reason]['clip_id']})" for reason in sorted(first)]
    if Reason.UNKNOWN_CHARACTERS in first:
        told.append("see --lower-case, --remove-characters and --vocab")
    return "; ".join(told)


def _labels(names: Sequence[str]) -> dict[str, Any]:
    numbered = dict(enumerate(names))
    return {"id2label": numbered, "label2id": {name: number for number, name in numbered.items()}}
