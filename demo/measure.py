"""Print how good the annotations of a table are: word, label, diarization and equal error rates, by shard.

    python demo/measure.py TABLE [RTTM ...]      # needs the extras diarization and speakers

TABLE is what `jobs/annotate.py` wrote; RTTM says who speaks when. What else a clip is stands in the table's
columns `ref_text`, `ref_label` (or is heard of a voice of the corpus) and `speaker`.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset

from pipeline.clip_names import names_of
from pipeline.metrics.rttm import Marks, read_rttm
from pipeline.storage import Storage, StorageOptions
from pipeline.training.report.scores import SCORINGS, Scored, metrics_of

# What one hears in the corpus. espeak-ng 1.51 speaks "en-gb+f5" in the plain male voice of "en-gb".
HEARD = {
    "en-us+f3": "female",
    "en-us+m4": "male",
    "en-gb+f5": "male",
    "en-gb-scotland+m6": "male",
    "en-gb-x-rp+Andrea": "female",
    "en-029+m2": "male",
}


def scored(rows: Sequence[dict[str, Any]], marks: dict[str, Marks]) -> dict[str, list[Scored]]:
    """By task, what the clips are and what is said of them."""
    loose = _loose_files()
    found: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        clip_id = row["clip_id"]
        row = loose.get(Path(clip_id.partition("#")[0]).name, {}) | row
        speaker = row.get("speaker") or row.get("loose_speaker")
        name = next((name for name in names_of(clip_id) if name in marks), None)
        references = {
            "transcribe": row.get("ref_text") or row.get("loose_text"),
            "classify": row.get("ref_label") or HEARD.get(speaker or ""),
            "diarize": marks[name].segments if name else None,
            "embed": speaker,
        }
        for task, reference in references.items():
            if reference:
                values = {name: row[name] for name in SCORINGS[task].columns if row.get(name) is not None}
                found[task].append(Scored(clip_id, reference, values, row["duration_s"]))
    return found


def _loose_files() -> dict[str, dict[str, str]]:
    """By name, what the table of the corpus' loose files says of them."""
    with (Path(__file__).parent / "references.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {
        Path(row["path"]).name: {f"loose_{name}": row[name] for name in ("text", "speaker")} for row in rows
    }


def main(table: str, rttm: Sequence[str]) -> None:
    storage = Storage(StorageOptions())
    marks: dict[str, Marks] = {}
    for uri in rttm:
        marks |= read_rttm("RTTM", storage.normalise(uri), storage)
    rows = pyarrow.dataset.dataset(table, format="parquet").to_table().to_pylist()
    sizes = Counter(row["shard"] for row in rows)
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["error"] is None:
            shard = Path(row["shard"])  # of loose files their folder
            groups[shard.name if sizes[row["shard"]] > 1 else f"{shard.parent.name}/"].append(row)
            groups["all of them"].append(row)
    for group, clips in sorted(groups.items()):
        for task, found in scored(clips, marks).items():
            figures = ", ".join(f"{metric} {value:.1%}" for metric, value in metrics_of(task, found).items())
            print(f"{group}, {task}, {len(found)} clips: {figures}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
