"""The commands of jobs/: from a command line to an exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from pydantic import BaseModel

from jobs.cli.flags import ENVIRONMENT_PREFIX, read_spec
from pipeline.errors import BrokenOffError, JobError, QualityError, TableInUseError
from pipeline.spec import JobSpec, annotate_spec, job_spec

__all__ = ["ENVIRONMENT_PREFIX", "command", "read_spec", "run_job", "tool"]

Spec = TypeVar("Spec", bound=BaseModel)
Done = TypeVar("Done")


def command(job: str) -> Callable[..., int]:
    """The `main` of jobs/<job>.py; `job` is the name of a task, or "annotate" for any tasks."""

    def main(arguments: Sequence[str] | None = None) -> int:
        """The exit status; see `run_job`."""
        # Here and not at import, so that the job knows tasks that were registered since.
        declaration = annotate_spec() if job == "annotate" else job_spec(job)
        return run_job(declaration, arguments, program=f"jobs/{job}.py")

    return main


def run_job(declaration: type[JobSpec], arguments: Sequence[str] | None, *, program: str) -> int:
    """A job from its command line (None: this process's) to its exit status.

    0: complete, or planned; 1: broken off, the same command goes on; 2: bad configuration; 3: more error rows
    than --max-error-rate; 4: another job works on the table; 5: storage did not deliver all of the input.
    """
    try:
        spec = read_spec(declaration, arguments, program=program)
        # After the flags are read: --help and mistakes should not wait for torch.
        from pipeline.job import plan, run
        from pipeline.reports.plan import format_plan
        from pipeline.reports.summary import format_summary

        _require_report(spec)
        with stopped_by_signals():
            if spec.table.plan:
                print(format_plan(plan(spec)))
                return 0
            summary = run(spec)
            print(format_summary(summary))
            if spec.table.report is not None:
                _report(spec, summary.output)
    except JobError as problem:
        return fail(program, problem)
    except KeyboardInterrupt:  # while packages were imported
        print(f"{program}: stopped before any work.", file=sys.stderr)
        return 1
    if not summary.complete:
        print(f"{program}: storage did not deliver all of the input; run it again.", file=sys.stderr)
        return 5
    error_rate = summary.whole.error_rate
    if error_rate > spec.table.max_error_rate:
        print(
            f"{program}: {error_rate:.1%} of the clips are error rows, "
            f"more than --max-error-rate {spec.table.max_error_rate:g}",
            file=sys.stderr,
        )
        return 3
    return 0


def _require_report(spec: JobSpec) -> None:
    """Raises JobError where the job's report could not be written."""
    if spec.table.report is not None:
        from pipeline.report.job import require_possible
        from pipeline.run import storage_of

        require_possible(spec.table.report, storage_of(spec), flag="--report", table=spec.table.output)


def _report(spec: JobSpec, table: str) -> None:
    """Writes the job's report and says where it is."""
    from pipeline.report.job import format_summary, report
    from pipeline.report.spec import ReportSpec

    try:
        told = ReportSpec(table=table, output=spec.table.report, storage=spec.corpus.storage)
        print(format_summary(report(told, spec.corpus.allow_hosts)))
    except JobError as problem:
        raise BrokenOffError(f"the table is complete, but there is no report: {problem}") from problem


def tool(
    declaration: type[Spec], work: Callable[[Spec], Done], show: Callable[[Done], str], *, program: str
) -> Callable[..., int]:
    """The `main` of a tool on a finished table."""

    def main(arguments: Sequence[str] | None = None) -> int:
        """From a command line to its exit status: 0 done, 2 bad configuration."""
        try:
            done = work(read_spec(declaration, arguments, program=program))
        except JobError as problem:
            return fail(program, problem)
        print(show(done))
        return 0

    return main


def fail(program: str, problem: JobError) -> int:
    """Prints what stopped the job; the exit status for it."""
    message = str(problem).replace("\n", "\n  ")
    print(f"{program}: {message}", file=sys.stderr)
    return {BrokenOffError: 1, QualityError: 3, TableInUseError: 4}.get(type(problem), 2)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the block as errors do, so that the table's lock is released."""

    terminated = False

    def stop(number: int, frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise SystemExit(number)

    given = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stopped:
        name = "SIGTERM" if terminated else "SIGINT"  # for which Ray Train raises SystemExit too
        raise BrokenOffError(f"stopped by {name}") from stopped
    finally:
        signal.signal(signal.SIGTERM, given)
