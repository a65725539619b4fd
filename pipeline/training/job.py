"""A fine-tuning job from its spec to its checkpoints: the way of a checkpoint, top to bottom."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from pipeline.errors import JobError, QualityError
from pipeline.storage import Storage, join
from pipeline.table.lock import Lock
from pipeline.training.examples.building import write_skipped
from pipeline.training.instructions import training_of
from pipeline.training.loop.course import Outcome
from pipeline.training.loop.worker import Training, train
from pipeline.training.loop.workers import Workers, run_on_workers, workers_of
from pipeline.training.report.progress import Progress, Show
from pipeline.training.report.watch import MEASURED, STEPPED
from pipeline.training.result import Result, finish, finished
from pipeline.training.settle import Job, places_of, require_usable, settle
from pipeline.training.spec import FinetuneSpec
from pipeline.training.spec.learning import METRICS
from pipeline.training.state.checkpoints import Checkpoints

Say = Callable[[str], None]
_OF_RUN = ("checkpoints", "losses", "data", "tensorboard")  # folders
_SETTINGS = "settings.json"
_FILES_OF_RUN = ("events.jsonl", "losses.parquet", "training.html", "summary.json")


def finetune(spec: FinetuneSpec, *, say: Say = print, show: Show | None = None) -> Result:
    """Trains, or goes on with the run that the output holds.

    Args:
        say: told what a person may want to know.
        show: called after each step. What ends it from outside is told after which.

    Raises:
        JobError: bad configuration, before any work starts; too many clips that cannot be used, or too many
            steps that came to nothing (`QualityError`).
    """
    storage, output = places_of(spec)
    lock = Lock.take(output, output, storage)
    try:
        _require_kept(spec, output, storage)
        job = settle(spec, say)
        require_usable(job)
        if spec.run.overwrite:
            _clear(output, storage)
        if done := finished(output, job.identity, storage):
            say("this run is done: --overwrite begins it anew")
            return done
        _require_same(job)
        _write_data(job)
        workers = workers_of(spec.cluster, spec.run.max_failures)
        training = training_of(job, lock, workers)
        outcome = _train(job, training, workers, _Shown(job, say, show))
        if outcome.problem is not None:
            raise QualityError(outcome.problem)
        return finish(job, training, outcome)
    finally:
        lock.release()


def _require_kept(spec: FinetuneSpec, output: str, storage: Storage) -> None:
    """What a run starts from must be there when it goes on after a kill.

    Raises:
        JobError: --overwrite would delete it.
    """
    for flag, place in (("--model", spec.model.model), ("--vocab", spec.data.vocab)):
        if spec.run.overwrite and place and f"{storage.normalise(place)}/".startswith(f"{output}/"):
            raise JobError(
                f"{flag} {place} is part of the run that --overwrite deletes: use another --output"
            )


def _clear(output: str, storage: Storage) -> None:
    """Deletes the run that is there; its features stay."""
    for folder in (*_OF_RUN, *METRICS):
        storage.remove(join(output, folder), recursive=True)
    for file in _FILES_OF_RUN:
        storage.remove(join(output, file))


def _require_same(job: Job) -> None:
    begun = Checkpoints(job.output, job.storage).begun()
    if begun is not None and begun.identity != job.identity:
        raise JobError(
            f"--output {job.output} holds a run {_difference(job)}. Use another output, or begin anew with "
            "--overwrite."
        )


def _difference(job: Job) -> str:
    stored = job.storage.read_bytes_or_none(join(job.output, "data", _SETTINGS))
    held = {} if stored is None else json.loads(stored)
    now = job.spec.decisive
    changed = [
        f"{name} {held[name]!r}, now {now[name]!r}" for name in now if held.get(name, now[name]) != now[name]
    ]
    return f"with other settings ({'; '.join(changed)})" if changed else "of another model or other data"


def _write_data(job: Job) -> None:
    """What the workers read, and people may look at."""
    folder, storage = join(job.output, "data"), job.storage
    job.labelled.train.index.save(join(folder, "train.arrow"), storage)
    if job.labelled.valid is not None:
        job.labelled.valid.index.save(join(folder, "valid.arrow"), storage)
    write_skipped(job.labelled.skipped, join(folder, "skipped.parquet"), storage)
    if job.labelled.vocabulary is not None:
        job.labelled.vocabulary.save(folder, storage)
    for name, facts in (("statistics.json", job.statistics.facts()), (_SETTINGS, job.spec.decisive)):
        storage.write_bytes(join(folder, name), json.dumps(facts, indent=2).encode())


def _train(job: Job, training: Training, workers: Workers, shown: _Shown) -> Outcome:
    work = partial(train, training)
    try:
        return run_on_workers(work, workers, join(job.output, "checkpoints", "ray"), job.storage, shown)
    except (KeyboardInterrupt, SystemExit) as stopped:
        stopped.add_note(f"after step {shown.step:,}")
        raise


class _Shown:
    """Shows what the workers tell."""

    def __init__(self, job: Job, say: Say, show: Show | None) -> None:
        self._job, self._say, self._show = job, say, show
        self._progress: Progress | None = None

    @property
    def step(self) -> int:
        """The last that was done; 0 before there is one."""
        return 0 if self._progress is None else self._progress.done

    def __call__(self, kind: str, news: Any) -> None:
        if kind == STEPPED:
            if self._progress is None:
                begun = Checkpoints(self._job.output, self._job.storage).begun()
                assert begun is not None
                self._progress = Progress(begun.max_steps, self._job.extractor.frame_s)
            self._progress.step(news)
            if self._show is not None:
                self._show(self._progress)
        elif kind == MEASURED and self._progress is not None:
            self._progress.validated(*news)
        else:
            self._say(str(news))
