"""Annotates nothing: reads and featurizes each of many inputs, as a process of its own that damage may kill.

`python -m tests.pipeline.corpus.fuzz_child FOLDER`: FOLDER/<case>/in are the inputs. Each case is named on
standard output before it is looked at; what came of it goes to FOLDER/<case>/rows.json.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.corpus.parts import bundles, read_parts, split
from pipeline.features.stage import FeatureOptions, Featurizer
from pipeline.features.windows import WindowPlan
from pipeline.schema import feature_schema, read_schema
from pipeline.spec import TranscribeSpec
from pipeline.storage import Storage, StorageOptions
from pipeline.table.ledger import Ledger
from pipeline.table.scan import scan
from w2vbert.features.extractor import SeamlessM4TFeatureExtractor

STORAGE = Storage(StorageOptions())


def rows_of(case: Path, extractor: SeamlessM4TFeatureExtractor) -> list[dict[str, Any]]:
    output = str(case / "out")
    spec = TranscribeSpec(input=[str(case / "in")], output=output, model="m")
    ledger = Ledger(output, STORAGE)
    found = scan(spec, ledger, {})
    featurizer = Featurizer(
        extractor,
        STORAGE,
        found.passthrough.schema,
        WindowPlan(frames=3000, overlap=200),
        FeatureOptions(max_duration_s=600),
    )
    parts = [part for shard in found.work.shards for part in split(shard, STORAGE)]
    rows: list[dict[str, Any]] = []
    for some in bundles(parts):
        for table in read_parts(some, STORAGE, found.passthrough):
            table.validate(full=True)
            assert table.schema == read_schema(found.passthrough.schema)
            read = table.select(["clip_id", "audio", "source"]).to_pylist()
            for features in featurizer(table):
                features.validate(full=True)
                assert features.schema == feature_schema(found.passthrough.schema)
                for row in features.select(["clip_id", "features", "windows", "error"]).to_pylist():
                    clip = read.pop(0)
                    assert clip["clip_id"] == row["clip_id"]
                    rows.append(
                        {
                            "clip_id": row["clip_id"],
                            "code": row["error"] and row["error"]["code"],
                            "audio": clip["source"] or digest(clip["audio"]),
                            "heard": row["features"] is not None or row["windows"] == [],
                        }
                    )
            assert read == []
    return rows


def digest(audio: bytes | None) -> str | None:
    return None if audio is None else hashlib.sha1(audio).hexdigest()


def main(folder: Path) -> None:
    faulthandler.enable()
    extractor = SeamlessM4TFeatureExtractor()
    for case in sorted(folder.iterdir()):
        print(case.name, flush=True)
        (case / "rows.json").write_text(json.dumps(rows_of(case, extractor)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
