"""A report from its spec to its page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from pipeline.errors import JobError
from pipeline.report.spec import ReportSpec
from pipeline.reports.summary import format_lines
from pipeline.storage import Storage, place_errors
from pipeline.table.log.place import require_outside_tables

_PACKAGES = ("altair", "vl_convert")
_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class Reported:
    """What a report has: `heard` of the `listed` clips are inside the page.

    Attributes:
        clips: of the table.
        size: of the page, in bytes.
    """

    output: str
    clips: int
    listed: int
    heard: int
    size: int


def report(spec: ReportSpec, hosts: Iterable[str] = ()) -> Reported:
    """Writes the page.

    Args:
        hosts: web servers that audio may be read from.

    Raises:
        JobError: bad configuration before anything is read, a table that is none, or storage that fails.
    """
    storage = Storage(spec.storage.with_environment(), frozenset(hosts))
    output = require_possible(spec.output, storage, table=spec.table)
    # After what can be wrong was looked at: to read audio again takes torch.
    from pipeline.report import scoring, sections
    from pipeline.report.audio import sounds
    from pipeline.report.clips import choose, described
    from pipeline.report.page import Page, write_page
    from pipeline.report.table import opened

    with opened(spec.table, storage, spec.seed, spec.speakers) as table:
        scoring.score(table)
        sections.speakers.prepare(table)
        clips = described(table, choose(table, spec.clips))
        parts = sections.sections(table, [clip["id"] for clip in clips])
        limit = round(spec.audio_mb * 1e6)
        heard = sounds(clips, storage, str(table.spec.get("channel", "mean")), limit)
        with place_errors("--output", spec.output):
            size = write_page(Page(table, parts, clips, heard), output)
        inside = sum(sound.opus is not None for sound in heard.values())
        return Reported(output, sum(footer.rows for footer in table.footers), len(clips), inside, size)


def require_possible(
    given: str, storage: Storage, *, flag: str = "--output", table: str | None = None
) -> str:
    """The place of a page, before there is a table to be shown on it.

    Raises:
        JobError: packages are missing, or the page cannot be there.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        raise JobError(f"a report needs {' and '.join(missing)}: pip install 'w2vbert[report]'")
    output = storage.normalise(given)
    if not output.lower().endswith(_ENDINGS):
        raise JobError(f"{flag} {given}: a report is an HTML file; give it a name that ends in .html.")
    with place_errors(flag, given):
        if storage.is_dir(output):
            raise JobError(f"{flag} {given} is a directory: name a file in it.")
        if not storage.is_replaceable(output):
            raise JobError(f"{flag} {given} is no ordinary file that could be replaced as a whole.")
        if table is not None and f"{output}/".startswith(f"{storage.normalise(table).rstrip('/')}/"):
            raise JobError(f"{flag} {given} lies in the table {table}; choose a place outside.")
        require_outside_tables(f"{flag} {given}", output, storage, table and storage.normalise(table))
    return output


def format_summary(done: Reported) -> str:
    """The summary as a person reads it."""
    return format_lines(
        [
            ("report", f"{done.output} ({done.size / 1e6:.1f} MB)"),
            ("", f"{done.listed} of {done.clips} clips are listed, {done.heard} can be heard"),
        ]
    )
