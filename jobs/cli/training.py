"""What jobs/finetune.py does with what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from jobs.cli import run_command, say
from jobs.cli.console import Line
from jobs.cli.settings import Told
from pipeline.training.spec import FinetuneSpec


def main(arguments: Sequence[str] | None = None, *, program: str = "jobs/finetune.py") -> int:
    """From a command line to its exit status.

    0: trained, or planned; 1: broken off, the same command goes on; 2: bad configuration; 3: too many clips
    that cannot be used, or too many steps that came to nothing; 4: another job works on the output; 130, 143:
    stopped by SIGINT or SIGTERM, the same command goes on.
    """
    return run_command(FinetuneSpec, arguments, _finetune, program=program)


def _finetune(told: Told[FinetuneSpec], line: Line) -> int:
    # After the flags are read: --help and mistakes should not wait for torch.
    from pipeline.training.job import finetune
    from pipeline.training.report.plan import format_plan, plan_of
    from pipeline.training.result import format_result
    from pipeline.training.settle import require_usable, settle

    spec, console = told.spec, told.console
    if spec.run.plan:
        job = settle(spec, say)
        plan = plan_of(job)
        console.result(lambda: format_plan(plan), plan.as_json)
        require_usable(job)
        return 0
    result = finetune(spec, say=say, show=line)
    line.close()
    console.result(lambda: format_result(result), lambda: asdict(result))
    return 0
