"""Transcripts against references, clip by clip: tables in DuckDB for whatever is asked about them.

`scored` has a row for each clip with a reference, `edits` one for each pair of words that met:

    scored(clip_id, words, word_errors, characters, character_errors)
    edits(kind, said, heard, times)    -- kind as of `Piece`; said or heard is '' where there is none
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.metrics.words import Piece, pieces
from pipeline.report.table import Report

if TYPE_CHECKING:
    import jiwer

_CLIPS = 2048  # aligned at once
_SCORED = pa.schema(
    [
        ("clip_id", pa.string()),
        ("words", pa.int64()),
        ("word_errors", pa.int64()),
        ("characters", pa.int64()),
        ("character_errors", pa.int64()),
    ]
)
_EDITS = pa.schema(
    [("kind", pa.string()), ("said", pa.string()), ("heard", pa.string()), ("times", pa.int64())]
)


def score(report: Report) -> int:
    """Makes the tables, which are empty where nothing has a reference; how many clips are scored.

    What is compared is what the summary of a run compares (`metrics.words.WordErrors`), so that the rates are
    the same.
    """
    database = report.database
    database.execute(
        "CREATE TABLE scored (clip_id VARCHAR, words BIGINT, word_errors BIGINT, "
        "characters BIGINT, character_errors BIGINT)"
    )
    database.execute("CREATE TABLE met (kind VARCHAR, said VARCHAR, heard VARCHAR, times BIGINT)")
    if report.columns.get("ref_text") == "VARCHAR" and report.has("text"):
        for batch in _pairs(report):
            scored, edits = _measured(batch)
            for table, found in (("scored", scored), ("met", edits)):
                database.from_arrow(found).insert_into(table)
    database.execute(
        "CREATE TABLE edits AS SELECT kind, said, heard, sum(times)::BIGINT AS times FROM met GROUP BY ALL"
    )
    return int(report.row("SELECT count(*) AS clips FROM scored")["clips"])


def _pairs(report: Report) -> Iterator[list[tuple[str, str, str]]]:
    """Clips with what was said and what is heard."""
    answer = report.database.cursor().execute(
        "SELECT clip_id, ref_text, text FROM clips "
        "WHERE error IS NULL AND ref_text IS NOT NULL AND text IS NOT NULL"
    )
    while batch := answer.fetchmany(_CLIPS):
        if pairs := [(clip_id, said.strip(), heard) for clip_id, said, heard in batch if said.strip()]:
            yield pairs


def _measured(pairs: list[tuple[str, str, str]]) -> tuple[pa.Table, pa.Table]:
    """Rows of `scored` and of `edits`."""
    import jiwer

    ids, said, heard = (list(side) for side in zip(*pairs, strict=True))
    words = jiwer.process_words(said, heard)
    characters = jiwer.process_characters(said, heard)
    met: Counter[Piece] = Counter()
    for sides in zip(words.references, words.hypotheses, words.alignments, strict=True):
        met.update(pieces(*sides))
    columns = [ids, *_errors(words), *_errors(characters)]
    edits = [(*pair, times) for pair, times in met.items()]
    return (
        pa.table(columns, schema=_SCORED),
        pa.table([list(side) for side in zip(*edits, strict=True)], schema=_EDITS)
        if edits
        else _EDITS.empty_table(),
    )


def _errors(measured: jiwer.WordOutput | jiwer.CharacterOutput) -> tuple[list[int], list[int]]:
    """Of each clip, the length of its reference and the number of edits."""
    lengths = [len(reference) for reference in measured.references]
    edits = [
        sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        for chunks in measured.alignments
    ]
    return lengths, edits
