"""README.md of a checkpoint: what it does, what it was made from and how, how good it is. No credentials."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import package_version
from pipeline.storage import Storage, join
from pipeline.training.report.scores import format_metric

FILE = "README.md"
_PACKAGES = ("w2vbert", "torch", "ray", "numpy")


@dataclass(frozen=True)
class Parent:
    """The checkpoint that training began with.

    Attributes:
        on_hub: `name` is that of a repository on the Hugging Face hub.
    """

    name: str
    digest: str
    on_hub: bool = False


@dataclass(frozen=True)
class Data:
    """What was learned from, or measured on.

    Attributes:
        use: "training" or "validation".
        digest: of the examples with their targets.
    """

    use: str
    name: str
    digest: str
    clips: int
    hours: float


@dataclass(frozen=True)
class Card:
    """What the README says.

    Attributes:
        title: of the model.
        task: the annotation, or "masked-prediction".
        parent: None: training began with random weights.
        settings: of the run, those that differ from the defaults or all; values as JSON has them.
        command: that made it.
        metrics: by "task/metric", such as "transcribe/wer": 0.07.
        backbone: digest of the encoder; checkpoints with the same one are annotated with in one pass.
        date: of the end of training, ISO 8601.
        versions: of packages.
    """

    title: str
    task: str
    parent: Parent | None
    data: Sequence[Data]
    settings: Mapping[str, Any]
    command: str
    metrics: Mapping[str, float]
    backbone: str
    date: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class _Kind:
    """How the hub, `transformers` and a person call a task."""

    pipeline_tag: str
    tags: tuple[str, ...]
    model: str
    does: str


_KINDS = {
    "transcribe": _Kind(
        "automatic-speech-recognition", ("ctc",), "Wav2Vec2BertForCTC", "Transcribes speech."
    ),
    "classify": _Kind(
        "audio-classification", (), "Wav2Vec2BertForSequenceClassification", "Labels recordings."
    ),
    "diarize": _Kind(
        "voice-activity-detection",
        ("speaker-diarization",),
        "Wav2Vec2BertForAudioFrameClassification",
        "Finds who speaks when.",
    ),
    "embed": _Kind(
        "feature-extraction",
        ("speaker-verification", "x-vector"),
        "Wav2Vec2BertForXVector",
        "Embeds voices: x-vectors that tell speakers apart.",
    ),
}
_ENCODER = _Kind(
    "feature-extraction",
    ("masked-prediction",),
    "Wav2Vec2BertModel",
    "An encoder of speech, to be fine-tuned.",
)
# Metric: its name on the hub, and in full.
_METRICS = {
    "wer": ("wer", "word error rate"),
    "cer": ("cer", "character error rate"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
    "der": ("der", "diarization error rate"),
    "eer": ("eer", "equal error rate"),
    "loss": ("loss", "loss"),
}


def installed_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}}


def write_card(card: Card, folder: str, storage: Storage) -> None:
    """Writes the README of the checkpoint in a folder."""
    storage.write_bytes(join(folder, FILE), render(card, storage).encode())


def render(card: Card, storage: Storage) -> str:
    """The README, with YAML in front as the Hugging Face hub reads it, without the storage's credentials."""
    public: Card = _public(card, storage)
    return f"---\n{_front_matter(public)}\n---\n\n{_body(public)}"


def _front_matter(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    kind = _KINDS.get(card.task, _ENCODER)
    dataset = next((data.name for data in card.data if data.use == "validation"), "validation")
    results = [
        EvalResult(
            task_type=kind.pipeline_tag,
            dataset_type="audio",
            dataset_name=dataset,
            metric_type=_METRICS[name][0],
            metric_name=_METRICS[name][1],
            metric_value=round(value, 6),
        )
        for name, value in _measured(card).items()
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=kind.pipeline_tag,
        tags=["wav2vec2-bert", "speech", *kind.tags],
        base_model=card.parent.name if card.parent and card.parent.on_hub else None,
        model_name=card.title if results else None,
        eval_results=results or None,
    )
    found: str = data.to_yaml()
    return found


def _body(card: Card) -> str:
    kind = _KINDS.get(card.task, _ENCODER)
    parts = [f"# {card.title}", f"{kind.does} A Wav2Vec2-BERT checkpoint in the published layout."]
    load = f'model = {kind.model}.from_pretrained("FOLDER")  # of this file'
    parts.append(f"```python\nfrom transformers import {kind.model}\n\n{load}\n```")
    if card.task in _KINDS:
        parts.append(f"```sh\npython jobs/{card.task}.py --input CORPUS --output TABLE --model FOLDER\n```")
    if measured := _measured(card):
        rows = [(_METRICS[name][1], format_metric(name, value)) for name, value in measured.items()]
        parts += ["## Validation", _table(("metric", "value"), rows)]
    parts += ["## Made from", _table(("what", "name", "digest"), _sources(card))]
    settings = [(name, str(value)) for name, value in card.settings.items()]
    parts += ["## Made by", _fenced(card.command), _table(("setting", "value"), settings)]
    versions = ", ".join(f"{name} {version}" for name, version in card.versions.items())
    parts.append(f"{card.date}; {versions}.")
    return "\n\n".join(parts) + "\n"


def _measured(card: Card) -> dict[str, float]:
    """The metrics of the card's own task that a reader knows the name of."""
    names = (tag.partition("/") for tag in card.metrics)
    return {
        name: card.metrics[f"{task}/{name}"]
        for task, _, name in names
        if task == card.task and name in _METRICS
    }


def _sources(card: Card) -> list[tuple[str, str, str]]:
    parent = card.parent
    rows = [("parent", parent.name, parent.digest) if parent else ("parent", "none: random weights", "")]
    rows += [
        (f"{data.use} data", f"{data.name}: {data.clips:,} clips, {data.hours:,.2f} h", data.digest)
        for data in card.data
    ]
    return [*rows, ("encoder", "shared by all checkpoints with this digest", card.backbone)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _fenced(text: str) -> str:
    """As a block of code, whatever is in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}sh\n{text}\n{fence}"


def _public(value: Any, storage: Storage) -> Any:
    """The same without credentials in any text."""
    match value:
        case str():
            return storage.options.redact(value)
        case Mapping():
            return {key: _public(item, storage) for key, item in value.items()}
        case list() | tuple():
            return [_public(item, storage) for item in value]
        case Card() | Parent() | Data():
            return type(value)(**{name: _public(item, storage) for name, item in vars(value).items()})
    return value
