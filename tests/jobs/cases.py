"""The shared cases: making them, running the two jobs that read them, and looking at what came out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.job import run
from pipeline.spec import TranscribeSpec
from tests.jobs.tables import Row, rows_of

FIRST, SECOND, THIRD = (
    "nine eight five two five",
    "nine five one seven six five",
    "seven zero zero two six five",
)
# References of the three recordings, and what the published model hears in them.
STRINGS = ((FIRST, FIRST), (SECOND, SECOND), (THIRD, "teven zero zero two six five"))
LATIN1 = "09-names-in-latin1"
# Two jobs, told apart by the columns of their inputs; the names of their outputs are case 26.
JOBS = {
    "out ?": (
        "02-empty-wav-with-tags",
        "03-wav-variants",
        "04-ogg-chained",
        "06-mp3-oddities",
        "07-flac-oddities",
        "08-symlinks",
        "09-file-names",
        LATIN1,
        "25-columns-differ-in-case",
    ),
    "out;": (
        "11-manifest-odd-lines",
        "12-manifest-durations",
        "14-tar-not-adjacent",
        "15-tar-dotted-names",
        "18-parquet-path-only",
        "19-parquet-columns",
    ),
}
# One process makes all of them: imports take longer than the files.
MAKE = """
import runpy, sys
for script, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    sys.argv = [script, folder]
    runpy.run_path(script)
"""


def make(cases: Path, home: Path, names: Iterable[str]) -> None:
    """Each of these cases in a folder of its name."""
    pairs: list[str] = []
    for name in names:
        script = "09-file-names/make_latin1.py" if name == LATIN1 else f"{name}/make.py"
        pairs += [str(cases / script), str(home / name)]
    subprocess.run([sys.executable, "-B", "-c", MAKE, *pairs], check=True, capture_output=True)


@dataclass(frozen=True)
class Done:
    """What the jobs left: of each its rows by clip id, the lines that it said, and the clips it counted."""

    home: Path
    rows: dict[str, dict[str, Row]]
    said: dict[str, list[str]]
    clips: dict[str, int]

    def of(self, case: str) -> dict[str, Row]:
        """By clip id, without the input's name that stands before a name that two inputs have."""
        rows = (row for output, names in JOBS.items() if case in names for row in self.rows[output].values())
        return {row["clip_id"].removeprefix(f"{case}/"): row for row in rows if f"/{case}/" in row["shard"]}


def do(home: Path, model: Path) -> Done:
    """Runs the jobs on what was made in `home`."""
    result = Done(home, {}, {}, {})
    for output, cases in JOBS.items():
        lines = result.said[output] = []
        spec = TranscribeSpec(
            input=[str(home / case) for case in cases],
            output=str(home / "somewhere" / output),
            model=str(model),
        )
        result.clips[output] = run(spec, say=lines.append).as_json()["clips"]
        result.rows[output] = rows_of(home / "somewhere" / output)
    return result


def found(rows: dict[str, Row]) -> dict[str, str]:
    """The transcript of each clip, or the code of its error, by the name of its file or its key in it."""
    return {key: row["error"]["code"] if row["error"] else row["text"] for key, row in rows.items()}


def by_file(rows: dict[str, Row]) -> dict[str, Row]:
    return {key.rpartition("#")[0]: row for key, row in rows.items()}


def columns(rows: dict[str, Row], *names: str) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(row[name] for name in names) for key, row in rows.items()}
