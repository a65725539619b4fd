"""From audio shards to a Parquet table of annotations; docs/architecture.md says how.

The functions here are the jobs (docs/python.md); nothing heavy is imported before one is called.

>>> from pipeline import transcribe
>>> transcribe("my/audio", "my/table", model="my/checkpoint").table()  # doctest: +SKIP
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.reports.summary import RunSummary
    from pipeline.spec import JobSpec
    from pipeline.storage import Storage

Place = str | PathLike[str]
Places = Place | Sequence[Place]
_log = logging.getLogger("pipeline")


@dataclass(frozen=True)
class Annotations:
    """What a job left.

    Attributes:
        output: the table's directory.
        summary: of this run; `complete` is False where storage did not deliver all of the input.
    """

    output: str
    summary: RunSummary
    _storage: Storage

    @property
    def files(self) -> list[str]:
        """The Parquet files of the table, for DuckDB, Polars or whatever reads them."""
        from pipeline.table.reader import table_files

        return table_files(self.output, self._storage)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of the table, those of clips that failed and those of earlier runs too.

        Args:
            columns: their names; all of them, if None. What there is per frame is most of the bytes.

        Raises:
            KeyError: the table lacks one of them.
        """
        import pyarrow as pa

        from pipeline.table.reader import read_batches, read_footer

        files = self.files
        schema = pa.unify_schemas([read_footer(file, self._storage).schema for file in files])
        names = list(schema.names if columns is None else columns)
        schema = pa.schema([schema.field(name) for name in names])
        batches = (batch for file in files for batch in read_batches(file, self._storage, names))
        parts = [pa.Table.from_batches([batch]) for batch in batches]
        return pa.concat_tables([schema.empty_table(), *parts], promote_options="default").select(names)


def transcribe(input: Places, output: Place, *, model: Place, **options: Any) -> Annotations:
    """Transcribes a corpus: texts, words with times and confidences.

    Args:
        input: directory, glob, file or s3:// URI of audio, or several.
        output: directory or s3:// URI of the table. What it holds already is not done again.
        model: directory, s3:// URI or hub id of a checkpoint.
        options: the flags of jobs/transcribe.py as keywords, `beam_width=8` for `--beam-width 8`.

    Raises:
        JobError: bad configuration, before any work starts.
        pydantic.ValidationError: an option that there is not, or a value that it does not take.
    """
    return _run("transcribe", input, output, options | {"model": model})


def classify(input: Places, output: Place, *, model: Place, **options: Any) -> Annotations:
    """Classifies each clip: the best labels with scores. Arguments and errors as of `transcribe`."""
    return _run("classify", input, output, options | {"model": model})


def diarize(input: Places, output: Place, *, model: Place, **options: Any) -> Annotations:
    """Tells who speaks when. Arguments and errors as of `transcribe`."""
    return _run("diarize", input, output, options | {"model": model})


def embed(input: Places, output: Place, *, model: Place, **options: Any) -> Annotations:
    """Makes an x-vector of each clip. Arguments and errors as of `transcribe`."""
    return _run("embed", input, output, options | {"model": model})


def annotate(input: Places, output: Place, **options: Any) -> Annotations:
    """Any annotations in one run, each with its checkpoint: `annotate("a", "b", transcribe="x", embed="y")`.

    Arguments and errors as of `transcribe`.
    """
    return _run("annotate", input, output, options)


def _run(job: str, input: Places, output: Place, options: dict[str, Any]) -> Annotations:
    from pipeline.job import run
    from pipeline.run import storage_of
    from pipeline.spec import annotate_spec, job_spec

    declaration = annotate_spec() if job == "annotate" else job_spec(job)
    places = [input] if isinstance(input, str | PathLike) else list(input)
    told = {name: str(value) if isinstance(value, PathLike) else value for name, value in options.items()}
    spec = declaration(input=[str(place) for place in places], output=str(output), **told)
    _require_a_run(spec)
    summary = run(spec, say=_log.info)
    return Annotations(summary.output, summary, storage_of(spec))


def _require_a_run(spec: JobSpec) -> None:
    """Raises JobError for what is the command line's."""
    from pipeline.errors import JobError

    if spec.table.plan:
        raise JobError("plan: a plan is no table; call pipeline.job.plan with a spec.")
    if spec.table.report is not None:
        raise JobError("report: call pipeline.report.job.report with a ReportSpec once the table is there.")


def package_version(name: str) -> str:
    """The version of an installed package, of this project from its checkout too; else "unknown"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return _own_version() if name == "w2vbert" else "unknown"


def _own_version() -> str:
    """What `w2vbert.__version__` is, without an import of PyTorch."""
    code = (Path(__file__).resolve().parent.parent / "w2vbert" / "__init__.py").read_text("utf-8")
    told = (node for node in ast.parse(code).body if isinstance(node, ast.Assign))
    return next(
        (str(ast.literal_eval(node.value)) for node in told if ast.unparse(node.targets[0]) == "__version__"),
        "unknown",
    )
