"""What a finished run leaves: checkpoints with their cards, losses by clip, a page, a summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import torch

from pipeline import strict_json
from pipeline.errors import Code
from pipeline.reports.progress import duration
from pipeline.reports.summary import format_hours, format_lines
from pipeline.storage import is_remote, join
from pipeline.training.batches.order import Order
from pipeline.training.examples.building import SKIPPED, write_skipped
from pipeline.training.examples.index import Index
from pipeline.training.loop.course import Outcome
from pipeline.training.loop.evaluate import Evaluator, ValidationSettings, gathered
from pipeline.training.loop.worker import Training, reader_of
from pipeline.training.model.learner import Learner
from pipeline.training.publish import publish
from pipeline.training.report.card import Card, Data, Parent, installed_versions, write_card
from pipeline.training.report.events import NOT_FINITE, read_events
from pipeline.training.report.losses import hard_clips, merge
from pipeline.training.report.page import Page, UnusableClip, write_page
from pipeline.training.report.page.pictures import MaskedExample
from pipeline.training.report.scores import Scored, format_metric, metric_name
from pipeline.training.report.watch import PARTS
from pipeline.training.settle import Job
from pipeline.training.state.checkpoints import Checkpoints
from w2vbert.encoder.masking import span_mask
from w2vbert.pretrained.digest import backbone_digest

PAGE, LOSSES = "training.html", "losses.parquet"
_SUMMARY = "summary.json"
_TROUBLE = {
    "blank_only": "clips without a word",
    "one_word": "clips with one word for several",
    "failed": "clips that came to nothing",
}
_TOLD = ("wer", "cer", "der", "eer", "accuracy", "macro_f1", "most_frequent", "loss", *_TROUBLE)
_NAMES = {"most_frequent": "by always saying the most frequent code", **_TROUBLE}
_SHOWN_FRAMES = 15_000  # of validation clips that the page shows: five minutes


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        checkpoints: by task, where its checkpoint is.
        step: that they are of; it was the best one, where there was something to validate on.
        metrics: at that step, by "task/metric".
        backbone: digest of the encoder that all of them share.
        skipped: steps that came to nothing.
        unusable: clips whose stored features are not finite.
        validation: what the metrics were measured on; None: nothing.
    """

    identity: str
    checkpoints: Mapping[str, str]
    step: int
    max_steps: int
    metrics: Mapping[str, float]
    backbone: str
    hours: float
    examples: int
    seconds: float
    skipped: int
    unusable: int
    validation: str | None


def finished(output: str, identity: str, storage: Any) -> Result | None:
    """What a run of this identity came to, if it is over."""
    data = storage.read_bytes_or_none(join(output, _SUMMARY))
    try:
        found = None if data is None else strict_json.loads(data, Result)
    except ValueError:
        return None
    return found if found is not None and found.identity == identity else None


def finish(job: Job, training: Training, outcome: Outcome) -> Result:
    """Publishes the best weights, and sums up the run."""
    storage, output, course = job.storage, job.output, training.course
    checkpoints = Checkpoints(output, storage)
    step = next(iter(checkpoints.best(course.kept)), None) or checkpoints.newest()
    assert step is not None  # the last step has one
    learner, _ = job.model.build()
    publish(learner, checkpoints.weights(step), training.settings, output, storage)
    unusable = _write_unusable(job)
    metrics = next((found for found in outcome.progress.measured if found["step"] == step), {})
    result = Result(
        identity=job.identity,
        checkpoints={task: join(output, task) for task in learner.results},
        step=step,
        max_steps=outcome.progress.step,
        metrics={name: value for name, value in metrics.items() if name != "step"},
        backbone=backbone_digest(next(iter(learner.results.values()))),
        hours=job.statistics.hours,
        examples=job.statistics.examples,
        seconds=outcome.progress.seconds,
        skipped=outcome.progress.skipped,
        unusable=unusable,
        validation=job.validation,
    )
    for task, folder in result.checkpoints.items():
        write_card(_card(job, task, result), folder, storage)
    losses = join(output, LOSSES)
    merge(join(output, PARTS), losses, storage)
    write_page(_page(job, training, learner, result), join(output, PAGE), storage)
    text = strict_json.dumps(asdict(result), indent=2) + "\n"
    storage.write_bytes(join(output, _SUMMARY), text.encode())
    return result


def format_result(result: Result) -> str:
    """For a person."""
    steps = f"{result.max_steps:,} in {duration(result.seconds)}"
    if result.skipped:
        steps += f"; {result.skipped:,} had clips whose loss or gradient was not finite, see events.jsonl"
    lines = [("examples", f"{result.examples:,}, {format_hours(result.hours)}"), ("steps", steps)]
    if result.unusable:
        unusable = f"{result.unusable:,} clips have features that are not finite, see data/skipped.parquet"
        lines.append(("unusable", unusable))
    if result.validation:
        lines.append(("validation", result.validation))
    measured = {task: _measured(task, result.metrics) for task in result.checkpoints}
    lines += [(task, found or "nothing was held out to measure it on") for task, found in measured.items()]
    best = f"step {result.step:,}{', the best' if any(measured.values()) else ', the last'}"
    shared = "; one encoder for all" if len(measured) > 1 else ""
    lines += [("checkpoint", f"{place} ({best}{shared})") for place in result.checkpoints.values()]
    output = next(iter(result.checkpoints.values())).rpartition("/")[0]
    lines += [("page", join(output, PAGE)), ("losses", join(output, LOSSES))]
    return format_lines(lines, width=max(12, *(len(name) + 2 for name, _ in lines)))


def _measured(task: str, metrics: Mapping[str, float]) -> str:
    found = {tag.rpartition("/")[2]: value for tag, value in metrics.items() if tag.startswith(f"{task}/")}
    return ", ".join(
        f"{_NAMES.get(key, metric_name(key))} {format_metric(key, value)}"
        for key in _TOLD
        if (value := found.get(key)) is not None and (value or key not in _TROUBLE)
    )


def _write_unusable(job: Job) -> int:
    """Adds to the clips that were not used those that turned out to be unusable; their number."""
    events = read_events(job.output, job.storage)
    held = [event["clip_ids"] for event in events if event.get("reason") == NOT_FINITE]
    about = {"reason": Code.NON_FINITE.value, "detail": NOT_FINITE}
    rows = [{"clip_id": clip_id, **about} for clip_id in dict.fromkeys(chain(*held))]
    if rows:
        table = pa.concat_tables([job.labelled.skipped, pa.Table.from_pylist(rows, SKIPPED)])
        write_skipped(table, join(job.output, "data", "skipped.parquet"), job.storage)
    return len(rows)


def _command() -> str:
    return "python " + shlex.join(sys.argv)


def _card(job: Job, task: str, result: Result) -> Card:
    spec, labelled, files = job.spec, job.labelled, job.start.files
    data = [("training", ", ".join(spec.data.train), labelled.train.index)]
    if labelled.valid is not None:
        # Without names of speakers: cards are published.
        place = ", ".join(spec.data.valid) or "held out of --train"
        data.append(("validation", place, labelled.valid.index))
    frame_s = job.extractor.frame_s
    return Card(
        title=f"{job.output.rpartition('/')[2]}: {task}",
        task=task,
        parent=None if files is None else Parent(files.name, files.digest, on_hub=_is_on_hub(files.name)),
        data=[
            Data(use, name, index.digest, len(index), float(index.frames.sum()) * frame_s / 3600)
            for use, name, index in data
        ],
        settings={name: value for name, value in spec.public().items() if name != "storage"},
        command=_command(),
        metrics=result.metrics,
        backbone=result.backbone,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        versions=installed_versions(),
    )


def _is_on_hub(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not is_remote(name)


def _page(job: Job, training: Training, learner: Learner, result: Result) -> Page:
    storage, labelled = job.storage, job.labelled
    hard = hard_clips(join(job.output, LOSSES), storage)
    ids = {clip.clip_id for clip in (*hard.worst, *hard.slowest)}
    facts = [
        ("command", _command()),
        ("data", f"{result.examples:,} examples, {result.hours:.2f} h"),
        ("validation", result.validation or "nothing was held out"),
        ("checkpoints", ", ".join(result.checkpoints.values())),
        ("step of the checkpoints", f"{result.step:,}"),
        ("encoder", result.backbone),
    ]
    return Page(
        title=job.output.rpartition("/")[2],
        facts=facts,
        events=read_events(job.output, storage),
        max_steps=result.max_steps,
        frame_s=job.extractor.frame_s,
        clips=_examples(training, learner),
        hard=hard,
        texts={clip_id: text for clip_id, text in labelled.texts.items() if clip_id in ids},
        unusable=[
            UnusableClip(
                row["clip_id"], " ".join(filter(None, (row["reason"], row["task"]))), row["detail"] or ""
            )
            for row in labelled.skipped.to_pylist()
        ],
        masked=_masked(training, learner),
    )


def _examples(training: Training, learner: Learner) -> Mapping[str, list[Scored]]:
    """Some validation clips, as the published model reads them."""
    if training.data.valid is None:
        return {}
    index = Index.load(training.data.valid, training.storage)
    order = Order(index.frames, index.file, training.data.budget, 0)
    reader = reader_of(training, index, augmented=False)
    settings = ValidationSettings(training.settings, training.extractor.frame_s, training.storage)
    evaluator = Evaluator(learner, settings)
    frames = 0
    for pack in order.packs(0):
        evaluator.add(reader.batch(pack))
        frames += int(index.frames[pack.examples].sum())
        if frames >= _SHOWN_FRAMES:
            break
    return gathered([evaluator.found]).clips


def _masked(training: Training, learner: Learner) -> MaskedExample:
    """The first clip that was learned from, as the model heard it."""
    index = Index.load(training.data.train, training.storage)
    order = Order(index.frames, index.file, training.data.budget, training.course.seed)
    batch = reader_of(training, index, augmented=True).batch(order.packs(0)[0])
    config, length = learner.encoder.config, batch.features.lengths[0]
    masks = training.model.masks
    probability, span, least = (
        (masks.probability, masks.length, masks.min_masks)
        if training.model.codebooks is not None
        else (config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks)
    )
    generator = torch.Generator().manual_seed(batch.seed)
    mask = span_mask(batch.features.lengths, probability, span, min_masks=least, generator=generator)
    return MaskedExample(
        " + ".join(filter(None, (batch.clip_ids[0], *batch.joined[:1]))),
        batch.features.split()[0].numpy(),
        mask[0, :length].numpy() & config.apply_spec_augment,
        training.extractor.num_mel_bins,
    )
