"""The same real recordings in each of the four layouts: one run, the words of the published model."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.job import run
from pipeline.spec import TranscribeSpec

FRAME_S = 0.02
Record = dict[str, Any]
Rows = dict[str, dict[str, Any]]


def lay_parquet(home: Path, records: list[Record], data: Path) -> dict[str, Record]:
    """As Hugging Face datasets stores audio: three files, several row groups each."""
    ids: dict[str, Record] = {}
    for shard in range(3):
        part = records[shard::3]
        name = f"train-{shard:05}-of-00003.parquet"
        audio = [{"bytes": (data / r["path"]).read_bytes(), "path": r["path"]} for r in part]
        type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"audio": pa.array(audio, type_), "text": [r["reference"] for r in part]})
        pq.write_table(table, home / name, row_group_size=40)
        ids |= {f"parquet/{name}#{row}": r for row, r in enumerate(part)}
    return ids


def lay_tar(home: Path, records: list[Record], data: Path) -> dict[str, Record]:
    """As WebDataset: audio and .txt of one key, two shards."""
    ids: dict[str, Record] = {}
    for shard in range(2):
        name = f"shard-{shard:06}.tar"
        seen: Counter[str] = Counter()
        with tarfile.open(home / name, "w") as archive:
            for record in records[shard::2]:
                key, extension = os.path.splitext(record["path"])
                members = (
                    (extension, (data / record["path"]).read_bytes()),
                    (".txt", record["reference"].encode()),
                )
                for ending, content in members:
                    member = tarfile.TarInfo(key + ending)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                seen[key] += 1
                ids[f"tar/{name}#{key}" + (f"~{seen[key]}" if seen[key] > 1 else "")] = record
    return ids


def lay_loose(home: Path, records: list[Record], data: Path) -> dict[str, Record]:
    ids: dict[str, Record] = {}
    for record in records:
        target = home / record["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / record["path"], target)
        ids[f"loose/{record['path']}#{target.stem}"] = record
    return ids


def lay_manifest(home: Path, records: list[Record], data: Path) -> dict[str, Record]:
    """As NeMo: one line a clip, the audio elsewhere."""
    lines = [
        json.dumps({"audio_filepath": str((data / r["path"]).absolute()), "text": r["reference"]})
        for r in records
    ]
    (home / "list.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {f"manifest/list.jsonl#{number}": r for number, r in enumerate(records, 1)}


LAYOUTS: dict[str, Callable[[Path, list[Record], Path], dict[str, Record]]] = {
    "parquet": lay_parquet,
    "tar": lay_tar,
    "loose": lay_loose,
    "manifest": lay_manifest,
}


@pytest.fixture(scope="module")
def records(shared_models: Path) -> list[Record]:
    lines = (shared_models / "digits-ctc" / "expected.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def laid_out(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], shared_data: Path
) -> tuple[Path, dict[str, dict[str, Record]]]:
    """The input tree, and for each layout the clip ids it must give."""
    tree = tmp_path_factory.mktemp("tree")
    ids = {}
    for name, lay in LAYOUTS.items():
        (tree / name).mkdir()
        ids[name] = lay(tree / name, records, shared_data)
    return tree, ids


@pytest.fixture(scope="module")
def done(
    laid_out: tuple[Path, Any], local_ray: None, shared_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Rows]:
    """The summary and the rows by id of one run over the whole tree."""
    output = tmp_path_factory.mktemp("transcripts") / "out"
    spec = TranscribeSpec(
        input=[str(laid_out[0])], output=str(output), model=str(shared_models / "digits-ctc")
    )
    summary = run(spec).as_json()
    rows = [row for file in sorted(output.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    by_id = {row["clip_id"]: row for row in rows}
    assert len(by_id) == len(rows), "a clip id came twice"
    return summary, by_id


def test_every_clip_of_every_layout_has_its_row(
    done: tuple[dict[str, Any], Rows],
    laid_out: tuple[Path, dict[str, dict[str, Record]]],
    records: list[Record],
) -> None:
    summary, rows = done
    assert len(records) == 260
    assert set(rows) == {clip_id for ids in laid_out[1].values() for clip_id in ids}
    assert len(rows) == 1040
    assert [row["error"] for row in rows.values() if row["error"]] == []
    assert (summary["clips"], summary["annotated"], summary["errors"]) == (1040, 1040, {})
    assert summary["scored_clips"] == 780  # loose files have no place for a reference
    assert (summary["shards_read"], summary["shards_skipped"]) == (3 + 2 + 260 + 1, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_text_and_words_are_the_published_models(
    layout: str, done: tuple[dict[str, Any], Rows], laid_out: tuple[Path, dict[str, dict[str, Record]]]
) -> None:
    for clip_id, expected in laid_out[1][layout].items():
        row = done[1][clip_id]
        assert row["text"] == expected["text"], clip_id
        assert [word["word"] for word in row["words"]] == [word["word"] for word in expected["words"]], (
            clip_id
        )
        for edge in ("start", "end"):
            frames = [word[f"{edge}_frame"] * FRAME_S for word in expected["words"]]
            assert [word[f"{edge}_s"] for word in row["words"]] == pytest.approx(frames, abs=1e-5), clip_id
        assert row["ref_text"] == (None if layout == "loose" else expected["reference"]), clip_id
