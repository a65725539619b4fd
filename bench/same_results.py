"""Whether two checkouts write the same tables: makes them from fixed inputs, and compares them bit for bit.

    python -m bench.same_results make OLD_CHECKOUT /tmp/same/before
    python -m bench.same_results make NEW_CHECKOUT /tmp/same/after
    python -m bench.same_results compare /tmp/same/before /tmp/same/after

The inputs are made once, in `same-results-inputs` beside the tables, from the demo of the first checkout (its
checkpoints too) and the shared recordings (W2VBERT_SHARED, or `shared` beside the checkout). Later runs read
the same files, so that clip ids and shard names are the same too. Each table is a job in a process and a Ray
cluster of its own; what it printed is in a log file beside its table.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
from scipy.signal import resample_poly

Flags = npt.NDArray[np.bool_]
Record = dict[str, Any]

INPUTS = "same-results-inputs"
HEADS = {"transcribe": "checkpoint", "classify": "classify", "diarize": "diarize", "embed": "embed"}
# What each table is made of, below the inputs, and the flags of its job.
TABLES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "demo": (("demo/corpus", "demo/meeting"), ()),
    "layouts": (("layouts",), ()),
    "long": (("long",), ()),
    "long-vad": (("long",), ("--vad", "energy", "--window-s", "20", "--nbest", "3")),
}
LABELLED = ("digits", "strings", "librispeech")
UNLABELLED = ("meeting", "mixtures", "formats")
AUDIO = (".wav", ".aiff", ".flac", ".mp3", ".m4a")
SHARDS = 3
ROWS_IN_A_GROUP = 100
LONG_S = 720.0
RATE = 16000
TIMES = {"encoder_s"}  # columns that no two runs share


def make(root: Path, out: Path, tables: Sequence[str]) -> None:
    """Writes the tables named into `out`, with the code of the checkout at `root`."""
    root, out = root.resolve(), out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    inputs = out.parent / INPUTS
    if not inputs.exists():
        make_inputs(inputs, root, Path(os.environ.get("W2VBERT_SHARED", root.parent / "shared")).resolve())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("W2VBERT_")}
    environment |= {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
    refuse_other_code(root, environment)
    for table in tables:
        sources, flags = TABLES[table]
        command = [sys.executable, "jobs/annotate.py", "--ray-address", "local", "--overwrite", *flags]
        command += ["--output", str(out / table)]
        command += [part for source in sources for part in ("--input", str(inputs / source))]
        command += [
            part for task, folder in HEADS.items() for part in (f"--{task}", str(inputs / "demo" / folder))
        ]
        started = time.monotonic()
        with (out / f"{table}.log").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise SystemExit(f"{table}: exit status {done.returncode}, see {out / table}.log")
        print(f"{table}: {time.monotonic() - started:.0f} s", flush=True)


def refuse_other_code(root: Path, environment: dict[str, str]) -> None:
    """Ends where the packages would come from elsewhere, as from the editable install of another checkout."""
    question = "import pipeline, w2vbert; print(pipeline.__path__[0], w2vbert.__path__[0], sep='\\n')"
    command = [sys.executable, "-c", question]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    for place in done.stdout.splitlines():
        if Path(place).resolve().parent != root:
            raise SystemExit(f"{place} would be imported instead of the code in {root}")


def make_inputs(home: Path, root: Path, shared: Path) -> None:
    """Makes what all runs read: the demo with its checkpoints, the layouts, and the long recording."""
    unfinished = home.with_name(f"{home.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for folder in ("corpus", "audio", "meeting", *HEADS.values()):
        shutil.copytree(root / "demo" / folder, unfinished / "demo" / folder)
    data = shared / "data"
    records = list(recordings(data))
    lay_loose(unfinished / "layouts" / "loose", records, data)
    lay_manifest(unfinished / "layouts" / "manifest", [*records, *turns(data)], data)
    lay_tars(unfinished / "layouts" / "webdataset", records, data)
    lay_parquet(unfinished / "layouts" / "parquet", records, data)
    write_long(unfinished / "long" / "long.flac", data)
    unfinished.rename(home)


def recordings(data: Path) -> Iterator[Record]:
    """Every recording: its path below `data`, and its labels where it has any."""
    for folder in LABELLED:
        for row in read_table(data / folder / "labels.tsv"):
            yield {**row, "path": f"{folder}/{row['path']}"}
    for folder in UNLABELLED:
        for file in sorted((data / folder).iterdir()):
            if file.suffix in AUDIO:
                yield {"path": f"{folder}/{file.name}"}


def turns(data: Path) -> Iterator[Record]:
    """Every turn of the mixtures, as a part of its recording."""
    for row in read_table(data / "mixtures" / "turns.tsv"):
        start_s, end_s = float(row["start_s"]), float(row["end_s"])
        yield {
            "path": f"mixtures/{row['path']}",
            "offset": start_s,
            "duration": end_s - start_s,
            "speaker": row["speaker"],
            "text": row["text"],
        }


def read_table(file: Path) -> list[dict[str, str]]:
    """The rows of a tab-separated file."""
    with file.open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))


def lay_loose(home: Path, records: Sequence[Record], data: Path) -> None:
    """Lays the recordings as files."""
    for record in records:
        target = home / record["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / record["path"], target)


def lay_manifest(home: Path, records: Sequence[Record], data: Path) -> None:
    """Lays the recordings as NeMo does: one line each, the audio elsewhere."""
    home.mkdir(parents=True)
    lines = []
    for record in records:
        fields = {name: value for name, value in record.items() if name not in ("path", "duration_s")}
        lines.append(json.dumps({"audio_filepath": str(data / record["path"]), **fields}))
    (home / "list.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lay_tars(home: Path, records: Sequence[Record], data: Path) -> None:
    """Lays the recordings as WebDataset does: audio, .txt and .json of one key side by side.

    Each shard takes neighbours, so that the files of `formats` that differ by extension share a key.
    """
    home.mkdir(parents=True)
    size = -(-len(records) // SHARDS)
    for shard in range(SHARDS):
        with tarfile.open(home / f"shard-{shard:06}.tar", "w") as archive:
            for record in records[shard * size : (shard + 1) * size]:
                key, extension = os.path.splitext(record["path"])
                members = {extension: (data / record["path"]).read_bytes()}
                if "text" in record:
                    members[".txt"] = record["text"].encode()
                    labels = {name: record[name] for name in ("speaker", "digit") if name in record}
                    members[".json"] = json.dumps(labels).encode()
                for ending, content in members.items():
                    member = tarfile.TarInfo(key + ending)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def lay_parquet(home: Path, records: Sequence[Record], data: Path) -> None:
    """Lays the recordings as Hugging Face datasets does: several files, several row groups each."""
    home.mkdir(parents=True)
    for shard in range(SHARDS):
        part = records[shard::SHARDS]
        audio = [{"bytes": (data / record["path"]).read_bytes(), "path": record["path"]} for record in part]
        columns = {"audio": pa.array(audio, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
        for name in ("text", "speaker"):
            columns[name] = pa.array([record.get(name) for record in part], pa.string())
        file = home / f"train-{shard:05}-of-{SHARDS:05}.parquet"
        pq.write_table(pa.table(columns), file, row_group_size=ROWS_IN_A_GROUP)


def write_long(file: Path, data: Path) -> None:
    """Joins utterances and strings of digits to one recording, with pauses of faint noise, some long."""
    rng = np.random.default_rng(0)
    spoken = [
        data / folder / row["path"]
        for folder in ("librispeech", "strings")
        for row in read_table(data / folder / "labels.tsv")
    ]
    pieces: list[npt.NDArray[np.float32]] = []
    length = 0
    while length < LONG_S * RATE:
        for number, index in enumerate(rng.permutation(len(spoken))):
            samples, rate = soundfile.read(spoken[index], dtype="float32")
            pause_s = 6.0 if number % 15 == 14 else rng.uniform(0.2, 1.0)
            noise = np.float32(1e-4) * rng.standard_normal(int(pause_s * RATE), dtype="f4")
            pieces += [resample_poly(samples, RATE, rate), noise]
            length += len(pieces[-2]) + len(pieces[-1])
            if length >= LONG_S * RATE:
                break
    file.parent.mkdir(parents=True)
    soundfile.write(file, np.concatenate(pieces), RATE, subtype="PCM_16")


def compare(one: Path, other: Path, tables: Sequence[str]) -> bool:
    """Whether the tables named (none: all below either folder) are equal; prints what differs."""
    names = tables or sorted({home.name for out in (one, other) for home in out.iterdir() if home.is_dir()})
    if not names:
        raise SystemExit(f"no tables below {one} and {other}")
    equal = True
    for name in names:
        absent = [str(out / name) for out in (one, other) if not list((out / name).glob("*.parquet"))]
        if absent:
            found, shape, keys = [f"no table at {place}" for place in absent], "", []
        else:
            left, right = load(one / name), load(other / name)
            found = differences(left, right)
            shape = f", {left.num_rows} rows, {left.num_columns} columns"
            keys = differing_keys(summary_keys(one / name), summary_keys(other / name))
        print(f"{name}{shape}: {'DIFFERS' if found else 'equal'}")
        for line in found:
            print(f"  {line}")
        for line in keys:
            print(f"  (the summary's keys, no failure) {line}")
        equal = equal and not found
    return equal


def load(table: Path) -> pa.Table:
    """All rows of a table, by clip id."""
    parts = [pq.read_table(file).replace_schema_metadata() for file in sorted(table.glob("*.parquet"))]
    rows: pa.Table = pa.concat_tables(parts)
    return rows.sort_by("clip_id")


def differences(one: pa.Table, other: pa.Table) -> list[str]:
    """What differs between two tables that are sorted by clip id, one line each."""
    lines = []
    if one.column_names != other.column_names:
        lines.append(f"columns: {one.column_names} and {other.column_names}")
    names = [name for name in one.column_names if name in other.column_names]
    for name in names:
        if not one.field(name).equals(other.field(name)):
            lines.append(f"type of {name}: {one.field(name)} and {other.field(name)}")
    ids = [table["clip_id"].to_pylist() for table in (one, other)]
    for which, found in zip(("first", "second"), ids, strict=True):
        if twice := sorted({left for left, right in itertools.pairwise(found) if left == right}):
            lines.append(f"clip ids more than once in the {which}: {len(twice)}: {twice[:3]}")
    if ids[0] != ids[1]:
        for which, only in (("first", set(ids[0]) - set(ids[1])), ("second", set(ids[1]) - set(ids[0]))):
            if only:
                lines.append(f"clip ids only in the {which}: {len(only)}: {sorted(only)[:3]}")
        common = pa.array(sorted(set(ids[0]) & set(ids[1])), pa.string())
        one, other = (table.filter(pc.is_in(table["clip_id"], value_set=common)) for table in (one, other))
        if one.num_rows != other.num_rows:
            return [*lines, "values are not compared"]
    for name in names:
        if name in TIMES or one.field(name).type != other.field(name).type:
            continue
        largest: dict[str, float] = {}
        rows = differing(whole(one[name]), whole(other[name]), name, largest)
        if rows.any():
            clips = one["clip_id"].filter(pa.array(rows)).slice(0, 3).to_pylist()
            numbers = ", ".join(f"{where} by {gap:.3g}" for where, gap in largest.items()) or "no numbers"
            lines.append(f"{name}: {rows.sum()} rows; at most {numbers}; {', '.join(clips)}")
    return lines


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def differing(one: pa.Array, other: pa.Array, name: str, largest: dict[str, float]) -> Flags:
    """Which values differ, of two arrays of one type and length: floats by their bits, NaN equal to NaN.

    Args:
        name: of the column, or of the field in it.
        largest: takes the largest absolute difference of the numbers under each name.
    """
    valid, valid_other = (array.is_valid().to_numpy(zero_copy_only=False) for array in (one, other))
    differ: Flags = valid != valid_other
    both = np.flatnonzero(valid & valid_other)
    if not len(both):
        return differ
    one, other = one.take(pa.array(both)), other.take(pa.array(both))
    kind = one.type
    if pa.types.is_struct(kind):
        for field in kind:
            value, value_other = (pc.struct_field(array, field.name) for array in (one, other))
            differ[both] |= differing(value, value_other, f"{name}.{field.name}", largest)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lengths, lengths_other = (pc.list_value_length(array).to_numpy() for array in (one, other))
        differ[both] = lengths != lengths_other
        alike = np.flatnonzero(lengths == lengths_other)
        values, values_other = (pc.list_flatten(array.take(pa.array(alike))) for array in (one, other))
        rows = np.repeat(both[alike], lengths[alike])
        differ[rows[differing(values, values_other, f"{name}[]", largest)]] = True
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        left, right = (array.to_numpy(zero_copy_only=False) for array in (one, other))
        unlike = left.view(f"i{left.itemsize}") != right.view(f"i{right.itemsize}")
        unlike &= ~(np.isnan(left) & np.isnan(right))
        if unlike.any():
            gaps = np.abs(left[unlike].astype(np.float64) - right[unlike].astype(np.float64))
            gap = float(np.nan_to_num(gaps, nan=np.inf).max())
            largest[name] = max(gap, largest.get(name, 0.0))
        differ[both] = unlike
    else:
        differ[both] = ~pc.equal(one, other).to_numpy(zero_copy_only=False)
    return differ


def summary_keys(table: Path) -> set[str]:
    """The names of all keys in the summaries of a table's runs, with those above them."""
    inside, beside = table / "_run", table.with_name(f"_{table.name}.runs")
    return {
        key
        for file in (inside if inside.exists() else beside).glob("*.json")
        if file.name != "table.json"
        for key in key_names(json.loads(file.read_text(encoding="utf-8")))
    }


def key_names(value: Any, above: str = "") -> Iterator[str]:
    """The names of the keys in a JSON value, as in `models.transcribe.name`."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{above}{name}"
            yield from key_names(inner, f"{above}{name}.")
    elif isinstance(value, list):
        for inner in value:
            yield from key_names(inner, above)


def differing_keys(one: set[str], other: set[str]) -> list[str]:
    """What only one of two sets of keys has, one line each."""
    pairs = (("first", one - other), ("second", other - one))
    return [f"only in the {which}: {', '.join(sorted(only))}" for which, only in pairs if only]


def main() -> int:
    """The exit status: 1 where tables differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="write the tables with the code of a checkout")
    maker.add_argument("root", type=Path, help="the checkout")
    maker.add_argument("out", type=Path, help="folder of the tables")
    comparer = commands.add_parser("compare", help="compare the tables below two folders")
    comparer.add_argument("one", type=Path)
    comparer.add_argument("other", type=Path)
    for command in (maker, comparer):
        command.add_argument("--tables", nargs="+", choices=TABLES, default=[], help="default: all")
    args = parser.parse_args()
    if args.command == "make":
        make(args.root, args.out, args.tables or list(TABLES))
        return 0
    return 0 if compare(args.one, args.other, args.tables) else 1


if __name__ == "__main__":
    raise SystemExit(main())
