"""The commands of jobs/: from a command line to an exit status."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from jobs.cli.console import Line
from jobs.cli.options import ENVIRONMENT_PREFIX
from jobs.cli.settings import Told, read, read_spec
from jobs.cli.signals import StoppedError, readers_may_leave, stopped_by_signals
from pipeline.errors import BrokenOffError, JobError, QualityError, TableInUseError
from pipeline.spec import JobSpec, annotate_spec, job_spec

__all__ = ["ENVIRONMENT_PREFIX", "Tool", "command", "read_spec", "run_command", "run_job", "tool"]

logger = logging.getLogger(__name__)
Spec = TypeVar("Spec", bound=BaseModel)
Done = TypeVar("Done")


@dataclass(frozen=True)
class Tool(Generic[Spec, Done]):
    """What a command on a finished table does, once its packages are imported.

    Attributes:
        text: what came of it, for a person.
        facts: the same for JSON; None: the fields of the result.
    """

    work: Callable[[Spec], Done]
    text: Callable[[Done], str]
    facts: Callable[[Done], dict[str, Any]] | None = None


def command(job: str) -> Callable[..., int]:
    """The `main` of jobs/<job>.py; `job` is the name of a task, or "annotate" for any tasks."""

    def main(arguments: Sequence[str] | None = None, *, program: str = f"jobs/{job}.py") -> int:
        """The exit status; see `run_job`."""
        # Here and not at import, so that the job knows tasks that were registered since.
        declaration = annotate_spec() if job == "annotate" else job_spec(job)
        return run_job(declaration, arguments, program=program)

    return main


def tool(declaration: type[Spec], load: Callable[[], Tool[Spec, Any]], *, program: str) -> Callable[..., int]:
    """The `main` of a tool on a finished table.

    Args:
        declaration: its spec.
        load: asked once the flags are read: --help and mistakes do not wait for what it imports.
    """

    def main(arguments: Sequence[str] | None = None, *, program: str = program) -> int:
        """From a command line to its exit status: 0 done, 2 bad configuration, 130 and 143 stopped."""

        def work(told: Told[Spec], line: Line) -> int:
            kind = load()
            done = kind.work(told.spec)
            told.console.result(lambda: kind.text(done), lambda: (kind.facts or vars)(done))
            return 0

        return run_command(declaration, arguments, work, program=program, goes_on=False)

    return main


def run_job(declaration: type[JobSpec], arguments: Sequence[str] | None, *, program: str) -> int:
    """A job from its command line (None: this process's) to its exit status.

    0: complete, or planned; 1: broken off, the same command goes on; 2: bad configuration; 3: more error rows
    than --max-error-rate; 4: another job works on the table; 5: storage did not deliver all of the input;
    130, 143: stopped by SIGINT or SIGTERM, the same command goes on.
    """
    return run_command(declaration, arguments, _annotate, program=program)


def run_command(
    declaration: type[Spec],
    arguments: Sequence[str] | None,
    work: Callable[[Told[Spec], Line], int],
    *,
    program: str,
    goes_on: bool = True,
) -> int:
    """A command from its command line to its exit status.

    Args:
        work: given what it is told, and the line of progress; its exit status.
        goes_on: whether the same command goes on where it was stopped.
    """
    try:
        with readers_may_leave():
            told = read(declaration, arguments, program=program)
    except JobError as problem:
        message = str(problem).replace("\n", "\n  ")
        print(f"{program}: {message}", file=sys.stderr)
        return _status(problem)
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    with told.console.speaking(program) as line:
        try:
            with readers_may_leave(), stopped_by_signals(goes_on=goes_on):
                return work(told, line)
        except JobError as problem:
            line.close()
            logger.error("%s", problem)
            return _status(problem)


def _annotate(told: Told[JobSpec], line: Line) -> int:
    # After the flags are read: --help and mistakes should not wait for torch.
    from pipeline.job import plan, run
    from pipeline.reports.plan import format_plan
    from pipeline.reports.summary import format_summary

    spec, console = told.spec, told.console
    _require_report(spec)
    if spec.table.plan:
        planned = plan(spec)
        console.result(lambda: format_plan(planned), planned.as_json)
        return 0
    summary = run(spec, say=say, show=line)
    line.close()
    console.result(lambda: format_summary(summary), summary.as_json)
    if spec.table.report is not None:
        _report(told, summary.output)
    if not summary.complete:
        logger.error("storage did not deliver all of the input; run it again.")
        return 5
    error_rate = summary.whole.error_rate
    if error_rate > spec.table.max_error_rate:
        logger.error(
            "%.1f%% of the clips are error rows, more than --max-error-rate %g",
            error_rate * 100,
            spec.table.max_error_rate,
        )
        return 3
    return 0


def say(news: str) -> None:
    """To who looks on."""
    logger.info("%s", news)


def _require_report(spec: JobSpec) -> None:
    """Raises JobError where the job's report could not be written."""
    if spec.table.report is not None:
        from pipeline.report.job import require_possible
        from pipeline.run import storage_of

        require_possible(spec.table.report, storage_of(spec), flag="--report", table=spec.table.output)


def _report(told: Told[JobSpec], table: str) -> None:
    """Writes the job's report and says where it is."""
    from pipeline.report.job import format_summary, report
    from pipeline.report.spec import ReportSpec

    spec = told.spec
    try:
        page = ReportSpec(table=table, output=spec.table.report, storage=spec.corpus.storage)
        done = report(page, spec.corpus.allow_hosts)
    except JobError as problem:
        raise BrokenOffError(f"the table is complete, but there is no report: {problem}") from problem
    if told.console.as_json:
        say(format_summary(done))
    elif not told.console.quiet:
        print(format_summary(done))


def _status(problem: JobError) -> int:
    if isinstance(problem, StoppedError):
        return problem.status
    return {BrokenOffError: 1, QualityError: 3, TableInUseError: 4}.get(type(problem), 2)
