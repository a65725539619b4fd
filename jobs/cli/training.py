"""The `main` of jobs/finetune.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs.cli import fail, stopped_by_signals
from jobs.cli.flags import read_spec
from pipeline.errors import JobError
from pipeline.training.spec import FinetuneSpec

_PROGRAM = "jobs/finetune.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """From a command line to its exit status.

    0: trained, or planned; 1: broken off, the same command goes on; 2: bad configuration; 3: too many clips
    that cannot be used, or too many steps that came to nothing; 4: another job works on the output.
    """
    try:
        spec = read_spec(FinetuneSpec, arguments, program=_PROGRAM)
        # After the flags are read: --help and mistakes should not wait for torch.
        from pipeline.training.job import finetune
        from pipeline.training.report.plan import format_plan, plan_of
        from pipeline.training.result import format_result
        from pipeline.training.settle import require_usable, settle

        with stopped_by_signals():
            if spec.run.plan:
                job = settle(spec, print)
                print(format_plan(plan_of(job)))
                require_usable(job)
                return 0
            print(format_result(finetune(spec)))
    except JobError as problem:
        return fail(_PROGRAM, problem)
    except KeyboardInterrupt:  # while packages were imported
        print(f"{_PROGRAM}: stopped before any work.", file=sys.stderr)
        return 1
    return 0
