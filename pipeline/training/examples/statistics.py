"""What a run would learn from, in numbers: for `--plan`, and for the summary of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.reports.summary import format_hours
from pipeline.training.examples.building import Built
from pipeline.training.examples.labels import Reason
from pipeline.training.examples.vocabulary import Vocabulary

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig

_ADVISED_MS = 35  # of audio a token, at most: https://huggingface.co/blog/fine-tune-w2v2-bert
_FAR = 2  # times as much
_MANY = 0.01  # share of the rows worth a hint
_SHOWN = 40  # characters in a line


@dataclass(frozen=True)
class Spread:
    """Five in a hundred lie below `low`, and five above `high`."""

    low: float
    median: float
    high: float
    highest: float

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Spread | None:
        return cls(*map(float, np.percentile(values, (5, 50, 95, 100)))) if len(values) else None

    def __str__(self) -> str:
        numbers = f"median {self.median:,.0f}, 90 % of {self.low:,.0f} to {self.high:,.0f}"
        return f"{numbers}, at most {self.highest:,.0f}"


@dataclass(frozen=True)
class Statistics:
    """Counts of what a run would learn from.

    Attributes:
        rows: of the feature tables: clips times speeds.
        tasks: by task, examples that have a target for it.
        tokens, ms_per_token: of texts; None where none are learned.
        skipped: by task ("" for all of them) and reason, rows without a target.
        vocabulary: None where no texts are learned.
        hints: what a person may want to do about it.
    """

    rows: int
    examples: int
    hours: float
    tasks: Mapping[str, int]
    frames: Spread | None
    tokens: Spread | None
    ms_per_token: Spread | None
    skipped: Mapping[tuple[str, str], int]
    vocabulary: Vocabulary | None = None
    hints: list[str] = field(default_factory=list)

    @property
    def unusable(self) -> float:
        """Share of the rows that nothing is learned from."""
        return 1 - self.examples / self.rows if self.rows else 0.0

    @property
    def reasons(self) -> list[str]:
        """Why rows are skipped, with their numbers."""
        return [
            f"{count:,} {reason}{f' ({task})' if task else ''}"
            for (task, reason), count in self.skipped.items()
        ]

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        spreads = {name: getattr(self, name) for name in ("frames", "tokens", "ms_per_token")}
        vocabulary = self.vocabulary
        return {
            "rows": self.rows,
            "examples": self.examples,
            "hours": self.hours,
            "unusable": self.unusable,
            "tasks": dict(self.tasks),
            **{name: None if spread is None else asdict(spread) for name, spread in spreads.items()},
            "skipped": [
                {"task": task or None, "reason": reason, "rows": count}
                for (task, reason), count in self.skipped.items()
            ],
            "vocabulary": None if vocabulary is None else len(vocabulary.ids),
            "left_out": {} if vocabulary is None else vocabulary.left_out,
            "hints": self.hints,
        }

    def lines(self) -> list[tuple[str, str]]:
        """For `format_lines`."""
        lines = [("examples", f"{self.examples:,} of {self.rows:,} rows, {format_hours(self.hours)}")]
        lines += [(task, f"{count:,} examples") for task, count in self.tasks.items()]
        spreads = {"frames": self.frames, "tokens": self.tokens, "ms per token": self.ms_per_token}
        lines += [(name, str(spread)) for name, spread in spreads.items() if spread is not None]
        lines += [("skipped", reason) for reason in self.reasons]
        if self.vocabulary is not None:
            lines += [("vocabulary", f"{len(self.vocabulary.ids)} tokens"), *_characters(self.vocabulary)]
        return lines + [("hint", hint) for hint in self.hints]


def statistics(
    built: Built,
    rows: int,
    frame_s: float,
    config: Wav2Vec2BertConfig,
    vocabulary: Vocabulary | None = None,
) -> Statistics:
    """
    Args:
        rows: that the index was built of.
        frame_s: seconds from one frame to the next.
    """
    index = built.index
    tokens = ms_per_token = np.zeros(0)
    if texts := index.targets.get("transcribe"):
        tokens = texts.values.lengths[texts.has].astype(np.float64)
        ms_per_token = 1000 * frame_s * index.frames[texts.has] / tokens
    reasons = zip(built.skipped["task"].to_pylist(), built.skipped["reason"].to_pylist(), strict=True)
    counted = Counter((task or "", reason) for task, reason in reasons)
    found = Statistics(
        rows=rows,
        examples=len(index),
        hours=float(index.frames.sum()) * frame_s / 3600,
        tasks={task: int(targets.has.sum()) for task, targets in index.targets.items()},
        frames=Spread.of(index.frames),
        tokens=Spread.of(tokens),
        ms_per_token=Spread.of(ms_per_token),
        skipped=dict(counted.most_common()),
        vocabulary=vocabulary,
    )
    found.hints.extend(_hints(found, config))
    return found


def _hints(found: Statistics, config: Wav2Vec2BertConfig) -> list[str]:
    hints = []
    spread = found.ms_per_token
    if spread is not None and spread.median > _FAR * _ADVISED_MS and not config.add_adapter:
        hints.append(
            f"--set add_adapter=true halves the frames of a text: a token has {spread.median:.0f} ms of "
            f"audio, 10 to {_ADVISED_MS} are advised"
        )
    too_long = found.skipped.get(("transcribe", Reason.LABEL_TOO_LONG), 0)
    if config.add_adapter and too_long > _MANY * found.rows:
        hints.append(
            f"--set add_adapter=false leaves room for {too_long:,} labels that are too long after the adapter"
        )
    strange = found.skipped.get(("transcribe", Reason.UNKNOWN_CHARACTERS), 0)
    if strange and found.vocabulary is not None and found.vocabulary.left_out:
        characters = "".join(list(found.vocabulary.left_out)[:_SHOWN])
        hints.append(
            f"characters without a token cost {strange:,} rows: --remove-characters {characters!r} would use "
            "these rows without them, a lower --min-char-count with them"
        )
    return hints


def _characters(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    held = [item for item in vocabulary.characters() if item["id"] is not None]
    lines = [("characters", _counted({item["character"]: item["count"] for item in held}))]
    if vocabulary.left_out:
        lines.append(("left out", _counted(vocabulary.left_out)))
    return [line for line in lines if line[1]]


def _counted(counts: Mapping[str, int]) -> str:
    shown = [f"{character!r} {count:,}" for character, count in list(counts.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")
