"""The commands by name, and what each of them is told."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from jobs.cli.console import Console
from jobs.cli.options import Option, options_of


def declarations() -> Mapping[str, type[BaseModel]]:
    """The specs of all commands."""
    from pipeline.export.spec import ExportSpec
    from pipeline.report.spec import ReportSpec
    from pipeline.speakers.spec import SpeakersSpec
    from pipeline.spec import annotate_spec, job_spec
    from pipeline.tasks import TASKS
    from pipeline.training.spec import FinetuneSpec

    return {
        **{task: job_spec(task) for task in TASKS},
        "annotate": annotate_spec(),
        "finetune": FinetuneSpec,
        "export": ExportSpec,
        "speakers": SpeakersSpec,
        "report": ReportSpec,
    }


def all_options(declaration: type[BaseModel]) -> list[Option]:
    """Those of a command: what to do, and how to speak of it."""
    return [*options_of(declaration), *options_of(Console)]


def all_variables() -> set[str]:
    """The environment variables that any command reads."""
    return {option.variable for each in declarations().values() for option in options_of(each)}
