"""What a job is told. One declaration is the command line, the YAML file and the environment (see jobs/cli).

A `JobSpec` is composed of parts: what to read, how to compute, what to write, and the options of each task.
Wherever a user gives or sees their fields, these stand flat beside each other. `job_spec` makes the spec of
one task's job, `annotate_spec` that of the job for any of them; both can also be imported from here by their
names, `TranscribeSpec`, `AnnotateSpec` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import Field, create_model, model_validator

from pipeline.metrics.base import Metric
from pipeline.spec.parts import MODEL, ComputeSpec, CorpusSpec
from pipeline.spec.run import RunSpec
from pipeline.storage import Storage
from pipeline.tasks import TASKS
from pipeline.tasks.base import NoOptions, Task

_CHECKPOINT = "a local directory, an s3:// URI or a Hugging Face hub id"


class JobSpec(RunSpec):
    """Annotate a speech corpus: audio shards in, one Parquet row per clip out.

    Keyword arguments are flat: `TranscribeSpec(input=["corpus"], output="table", model="ctc")`.
    """

    corpus: CorpusSpec
    compute: ComputeSpec

    tasks_by_field: ClassVar[Mapping[str, Task]] = {}  # field of the checkpoint -> its task

    def __init__(self, **values: Any) -> None:  # for type checkers: the fields of the parts are arguments too
        super().__init__(**values)

    @model_validator(mode="after")
    def _something_to_do(self) -> Self:
        if not self.models:
            flags = ", ".join(f"--{field}" for field in self.tasks_by_field)
            raise ValueError(f"nothing to annotate: give any of {flags}")
        return self

    @property
    def makes(self) -> tuple[str, ...]:
        """The names of the annotations."""
        return tuple(self.models)

    @property
    def models(self) -> dict[str, str]:
        """The checkpoint of each annotation that is asked for."""
        given = {task.name: getattr(self, field) for field, task in self.tasks_by_field.items()}
        return {name: model for name, model in given.items() if model is not None}

    @property
    def model_flags(self) -> dict[str, str]:
        """The flag that names each task's checkpoint."""
        return {task.name: f"--{field}" for field, task in self.tasks_by_field.items()}

    @property
    def tasks(self) -> dict[str, Task]:
        """The annotations that are asked for."""
        asked = self.models
        return {task.name: task for task in self.tasks_by_field.values() if task.name in asked}

    def options(self, task: str) -> Any:
        """The options of a task; the default ones if this job does not have it."""
        return getattr(self, _part_of(task), None) or TASKS[task].options()

    def metrics(self, storage: Storage) -> dict[str, Metric]:
        """Metrics by task, of every registered one: a summary has the keys of those that its job lacks, too.

        Raises:
            JobError: a reference cannot be read.
        """
        return {
            name: task.metric(self.options(name), storage)
            for name, task in TASKS.items()
            if task.metric is not None
        }

    def output_settings(self) -> dict[str, Any]:
        """The settings that decide what is written, without the models' places (digests stand for them).

        Options of annotations that the job does not make decide nothing.
        """
        idle = {_part_of(task.name) for task in self.tasks_by_field.values()} - {*map(_part_of, self.tasks)}
        return self._settings(part for part in self.parts() if part not in idle)


def job_spec(task: str) -> type[JobSpec]:
    """The spec of the job that makes one annotation; its checkpoint is `model`."""
    return _make(_class_name(task), TASKS[task].about, (("model", TASKS[task]),))


def annotate_spec() -> type[JobSpec]:
    """The spec of the job that makes any annotations of those registered by now; each has its own flag."""
    about = (
        "Write any annotations in one run: checkpoints that share a backbone share its pass over the audio."
    )
    return _make("AnnotateSpec", about, tuple(TASKS.items()))


@cache
def _make(name: str, about: str, tasks: tuple[tuple[str, Task], ...]) -> type[JobSpec]:
    """A spec class with the checkpoints (field, task) and the options of these tasks."""
    fields: dict[str, Any] = {}
    for _, task in tasks:
        if task.options is not NoOptions:
            fields[_part_of(task.name)] = (task.options, Field())
    for field, task in tasks:
        description = f"checkpoint that {task.does}: {_CHECKPOINT}"
        required = field == "model"
        extra = MODEL | {"first": True}
        fields[field] = (
            str if required else str | None,
            Field(... if required else None, min_length=1, description=description, json_schema_extra=extra),
        )
    made: type[JobSpec] = create_model(name, __base__=JobSpec, __doc__=about, __module__=__name__, **fields)
    made.tasks_by_field = dict(tasks)
    _refuse_shared_names(made)
    return made


def _refuse_shared_names(spec: type[JobSpec]) -> None:
    taken: dict[str, str] = dict.fromkeys(spec.model_fields.keys() - spec.parts().keys(), "a checkpoint")
    for part, kind in spec.parts().items():
        for name in kind.model_fields:
            if name in taken:
                raise ValueError(f"{spec.__name__}: {name} is a field of both {taken[name]} and {part}")
            taken[name] = part


def _part_of(task: str) -> str:
    return f"{task}_options"


def _class_name(task: str) -> str:
    return f"{task.title().replace('_', '')}Spec"


def __getattr__(name: str) -> type[JobSpec]:
    """`AnnotateSpec`, and of each task such as `TranscribeSpec`: made of the tasks registered by now."""
    if name == "AnnotateSpec":
        return annotate_spec()
    for task in TASKS:
        if name == _class_name(task):
            return job_spec(task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
