"""How good a model is on validation clips: each task by its own metrics, which of them decides, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import JobError
from pipeline.metrics.der import SpeakerErrors
from pipeline.metrics.der import score as score_speakers
from pipeline.metrics.labels import LabelErrors
from pipeline.metrics.rttm import Marks, Segment
from pipeline.metrics.words import WordErrors
from pipeline.speakers.trials import verification
from pipeline.tasks.base import Values

MOST_VOICES = 2000  # clips whose pairs are compared: two million pairs
LOSS = "loss"
_RISING = frozenset({"accuracy", "macro_f1"})
_COUNTED = frozenset({"zeroed"})  # facts that say how many, not how much on the average
_FACTS = {"correct": "accuracy"}
_NAMES = {"wer": "WER", "cer": "CER", "der": "DER", "eer": "EER", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Scored:
    """What one clip is, and what a head says of it.

    Attributes:
        reference: transcribe: text. classify: label. diarize: `Segment`s. embed: the speaker's index.
        values: the columns that `Scoring.columns` names; none where the head has nothing to say.
        seconds: of the clip.
        loss: of the clip; None where it is not finite.
    """

    clip_id: str
    reference: Any
    values: Values
    seconds: float
    loss: float | None = None


@dataclass(frozen=True)
class Scoring:
    """How a task is measured.

    Attributes:
        main: the metric that says which of two models is better.
        columns: of the annotation, to be kept for it.
        metrics: by name, without those for which there is nothing to count.
    """

    main: str
    columns: tuple[str, ...]
    metrics: Callable[[Sequence[Scored]], dict[str, float | None]]


def _transcripts(clips: Sequence[Scored]) -> dict[str, float | None]:
    """WER and CER, and two marks of a model that has not begun to read: no word at all, or one for many."""
    errors = WordErrors()
    pairs = [(clip.reference, clip.values.get("text", "")) for clip in clips if clip.reference.strip()]
    errors.add_rows({"ref_text": reference, "text": text} for reference, text in pairs)
    silent = [not text.strip() for _, text in pairs]
    single = [len(text.split()) == 1 for reference, text in pairs if len(reference.split()) > 1]
    return {
        "wer": errors.words.rate,
        "cer": errors.characters.rate,
        "blank_only": _share(silent),
        "one_word": _share(single),
    }


def _labels(clips: Sequence[Scored]) -> dict[str, float | None]:
    errors = LabelErrors()
    for clip in clips:
        errors.add(clip.reference, clip.values.get("label"))
    return {"accuracy": errors.accuracy, "macro_f1": errors.macro_f1}


def _speakers(clips: Sequence[Scored]) -> dict[str, float | None]:
    """DER and its parts, as shares of the speech in the reference."""
    total = SpeakerErrors()
    for clip in clips:
        found = [Segment(**segment) for segment in clip.values.get("segments", ())]
        total.add(score_speakers(Marks(list(clip.reference)), found, clip.seconds))
    if not total.total:
        return {}
    parts = {
        "missed": total.missed,
        "false_alarm": total.false_alarm,
        "confusion": total.confusion,
    }
    return {"der": total.rate, **{name: seconds / total.total for name, seconds in parts.items()}}


def _voices(clips: Sequence[Scored]) -> dict[str, float | None]:
    """EER over all pairs of clips; of more than `MOST_VOICES` clips, over those of as many, evenly chosen."""
    embedded = sorted((clip for clip in clips if "embedding" in clip.values), key=lambda clip: clip.clip_id)
    if len(embedded) > MOST_VOICES:
        chosen = np.linspace(0, len(embedded) - 1, MOST_VOICES).round().astype(int)
        embedded = [embedded[index] for index in chosen]
    if len(embedded) < 2:
        return {}
    vectors = np.stack([clip.values["embedding"] for clip in embedded]).astype(np.float64)
    speakers = np.array([clip.reference for clip in embedded])
    one, other = np.triu_indices(len(embedded), 1)
    same: npt.NDArray[np.bool_] = speakers[one] == speakers[other]
    if same.all() or not same.any():
        return {}
    return {"eer": verification(same, (vectors @ vectors.T)[one, other]).eer}


SCORINGS: dict[str, Scoring] = {
    "transcribe": Scoring("wer", ("text",), _transcripts),
    "classify": Scoring("accuracy", ("label", "label_score"), _labels),
    "diarize": Scoring("der", ("segments",), _speakers),
    "embed": Scoring("eer", ("embedding",), _voices),
}
_PACKAGES = {"diarize": ("pyannote.metrics", "diarization"), "embed": ("sklearn", "speakers")}


def metrics_of(task: str, clips: Sequence[Scored]) -> dict[str, float]:
    """A task's metrics, "wer" and its like, of clips that have a reference.

    `failed` is the share of clips of which the head says nothing: too short, or numbers that are not finite.
    They count as wrong, but for x-vectors, where nothing is left to compare.
    """
    if task not in SCORINGS or not clips:
        return {}
    found = SCORINGS[task].metrics(clips) | {"failed": _share([not clip.values for clip in clips])}
    return {name: value for name, value in found.items() if value is not None}


def means(facts: Mapping[str, float], counts: Mapping[str, float]) -> dict[str, float]:
    """`TaskLoss.facts`, by "task/fact" and summed, as metrics of a clip, or of what else the task counts.

    Args:
        counts: by task, summed likewise.
    """
    found = {}
    for tag, total in facts.items():
        task, _, fact = tag.partition("/")
        if fact in _COUNTED:
            found[tag] = total
        elif counts.get(task):
            found[f"{task}/{_FACTS.get(fact, fact)}"] = total / counts[task]
    return found


def metric_name(metric: str) -> str:
    """As people write it: of "transcribe/wer" or "wer", "WER"."""
    name = metric.rpartition("/")[2]
    return _NAMES.get(name, name.replace("_", " "))


def format_metric(metric: str, value: float, decimals: int = 2) -> str:
    """A share in percent, or a loss."""
    return f"{value:.4g}" if metric.rpartition("/")[2] == LOSS else f"{value:.{decimals}%}"


def main_metric(task: str) -> str:
    """What decides which model is better at a task, such as "transcribe/wer"; its loss otherwise."""
    return f"{task}/{SCORINGS[task].main if task in SCORINGS else LOSS}"


def higher_is_better(metric: str) -> bool:
    """Of a metric such as "transcribe/wer"."""
    return metric.rpartition("/")[2] in _RISING


def require_packages(tasks: Sequence[str]) -> None:
    """Raises JobError where a task's metric needs a package that is not installed: better before training."""
    for task in tasks:
        package, extra = _PACKAGES.get(task, ("", ""))
        if package and not _installed(package):
            raise JobError(f"--task {task}: its validation needs {package}: pip install 'w2vbert[{extra}]'")


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _share(flags: Sequence[bool]) -> float | None:
    return sum(flags) / len(flags) if flags else None
