"""`--plan`: what there is to do, how much audio that is and how long it takes, without doing any of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile

from pipeline.corpus.datasource import Part
from pipeline.corpus.listing import Format, Shard
from pipeline.corpus.readers.manifest import read_manifest
from pipeline.errors import JobError
from pipeline.reports.cost import earlier_speed, estimated_speed
from pipeline.spec import JobSpec
from pipeline.storage import Storage, join
from pipeline.table.ledger import Ledger
from pipeline.table.plans import Work
from pipeline.table.scan import choose_table, scan
from w2vbert.config import CONFIG_NAME, Wav2Vec2BertConfig

_LISTED = 20
_THREADS = 16  # storage far away answers slowly, but many at once
_SAMPLED_SHARDS = 4  # of each layout, and of each so many clips
_SAMPLED_CLIPS = 8
_SAMPLED_FILES = 32
_BLOCK_BYTES = 256 << 10  # a header needs little, and s3fs would fetch 50 MB
_DURATION = pa.schema([("duration", pa.float64())])


@dataclass(frozen=True)
class _Extent:
    """How much a shard holds, as far as it can be known without reading it.

    `clips` is None where only reading tells; `seconds` are those that a manifest gives, of `timed` clips.
    """

    shard: Shard
    done: int
    clips: int | None = None
    seconds: float = 0.0
    timed: int = 0

    @property
    def left(self) -> float:
        """The share of its clips that is to be done."""
        return max(0, self.clips - self.done) / self.clips if self.clips else 1.0


@dataclass(frozen=True)
class _Sample:
    """Clips of one layout whose headers were read."""

    clips: int = 0
    seconds: float = 0.0
    size: int = 0


def look_ahead(spec: JobSpec) -> dict[str, Any]:
    """The plan of a job. Reads listings, footers, manifests and a few headers, and writes nothing.

    Raises:
        JobError: what would stop the job itself before any work, but for the models' weights.
    """
    storage = Storage(spec.storage.with_environment())
    ledger, base_table = choose_table(spec, storage)
    configs = [_config(model, storage) for model in dict.fromkeys(spec.models.values())]
    found = scan(spec, ledger, spec.output_settings(), base_table, dry=True)
    return {
        "output": ledger.output,
        "said": list(found.log_lines()),
        "where": spec.where,
        "limit": spec.limit,
        **plan(spec, found.work, ledger, configs),
    }


def plan(spec: JobSpec, work: Work, ledger: Ledger, configs: Sequence[Wav2Vec2BertConfig]) -> dict[str, Any]:
    """What there is to do and what it costs.

    Args:
        configs: of each encoder that runs over all of the audio.
    """
    storage = ledger.storage
    with ThreadPoolExecutor(_THREADS) as threads:
        extents = list(threads.map(partial(_extent, work=work, storage=storage), work.shards))
        samples = {
            layout: _sample([e.shard for e in extents if e.shard.format is layout], storage, threads)
            for layout in Format
            if any(e.shard.format is layout and e.timed == 0 for e in extents)
        }
    seconds, basis = _audio(extents, samples)
    device_hours = speed = None
    if seconds:
        clip_s = min(spec.window_s, _mean_clip_s(extents, samples) or spec.window_s)
        speed = earlier_speed(ledger) or estimated_speed(configs, clip_s, spec.dtype)
        device_hours = seconds / 3600 / speed.audio_s_per_s
    return {
        "shards": [
            {
                "name": e.shard.name,
                "layout": str(e.shard.format),
                "bytes": e.shard.size,
                "clips": e.clips,
                "done": e.done,
            }
            for e in extents
        ],
        "shards_skipped": work.skipped,
        "bytes": sum(e.shard.size for e in extents),
        "clips": sum(max(0, e.clips - e.done) for e in extents if e.clips is not None),
        "uncounted_shards": sum(e.clips is None for e in extents),
        "hours": None if seconds is None else seconds / 3600,
        "hours_basis": basis,
        "device_hours": device_hours,
        "device_hours_basis": speed.basis if speed else None,
    }


def for_the_eye(plan: Mapping[str, Any]) -> str:
    """The plan as a person reads it."""
    lines = [*plan["said"], ""]
    if not plan["shards"]:
        return "\n".join([*plan["said"], "nothing is new"])
    shown = [
        (s["name"], s["layout"], _size(s["bytes"]), _count(s["clips"]), _count(s["done"]))
        for s in plan["shards"][:_LISTED]
    ]
    lines += _columns([("shard", "layout", "size", "clips", "done"), *shown])
    if more := len(plan["shards"]) - len(shown):
        lines.append(f"… and {more:,} more")
    clips = f"{plan['clips']:,}"
    if plan["uncounted_shards"]:
        clips += f", and those of the shards marked ?, {plan['uncounted_shards']:,} in all"
    lines += [
        "",
        f"{'to read':<14}{len(plan['shards']):,} shards, {_size(plan['bytes'])}",
        f"{'clips':<14}{clips}",
    ]
    if plan["where"]:
        lines.append(f"{'':<14}all of these shards; --where is looked at when they are read")
    if plan["limit"]:
        lines.append(f"{'':<14}at most {plan['limit']:,} of them in this run (--limit)")
    lines.append(f"{'audio':<14}{_hours(plan['hours'])}")
    lines.append(f"{'':<14}{plan['hours_basis']}")
    lines.append(
        f"{'device-hours':<14}{_hours(plan['device_hours'])} of one model actor's device, an estimate"
    )
    if plan["device_hours_basis"]:
        lines.append(f"{'':<14}{plan['device_hours_basis']}")
    return "\n".join(lines)


# How much audio


def _extent(shard: Shard, work: Work, storage: Storage) -> _Extent:
    done = len(work.done.get(shard.uri, ()))
    if shard.format is Format.AUDIO:
        return _Extent(shard, done, clips=1)
    if shard.format is Format.PARQUET:
        try:
            with storage.open(shard.uri) as handle:
                return _Extent(shard, done, clips=pq.read_metadata(handle).num_rows)
        except Exception:  # a shard that is broken becomes an error row
            return _Extent(shard, done)
    if shard.format is Format.MANIFEST:
        tables = [table.select(["duration"]) for table in read_manifest(shard, storage, _DURATION)]
        durations = pa.concat_tables(tables)["duration"] if tables else pa.chunked_array([], pa.float64())
        total = float(pc.sum(durations).as_py() or 0.0)
        return _Extent(shard, done, len(durations), total, len(durations) - durations.null_count)
    return _Extent(shard, done)


def _sample(shards: Sequence[Shard], storage: Storage, threads: ThreadPoolExecutor) -> _Sample:
    """A few clips of a few shards, spread over all of them."""
    wanted = _SAMPLED_FILES if shards and shards[0].format is Format.AUDIO else _SAMPLED_SHARDS
    spread = shards[:: max(1, -(-len(shards) // wanted))]
    read = [header for some in threads.map(partial(_headers, storage=storage), spread) for header in some]
    return _Sample(len(read), sum(seconds for seconds, _ in read), sum(size for _, size in read))


def _headers(shard: Shard, storage: Storage) -> list[tuple[float, int]]:
    """(seconds, bytes) of the first clips of a shard; those whose header cannot be read are left out."""
    clips = next(iter(Part(shard).read(storage, pa.schema([]))), None)
    found = []
    for clip in clips.slice(0, _SAMPLED_CLIPS).to_pylist() if clips is not None else []:
        try:
            if clip["audio"] is not None:
                seconds, size = soundfile.info(io.BytesIO(clip["audio"])).duration, len(clip["audio"])
            else:
                with storage.open(clip["source"], block_size=_BLOCK_BYTES) as handle:
                    seconds, size = soundfile.info(handle).duration, handle.seek(0, io.SEEK_END)
        except Exception:
            continue
        if clip["start_s"] is not None:
            seconds = clip["length_s"] or max(0.0, seconds - clip["start_s"])
        found.append((seconds, size))
    return found


def _audio(extents: Sequence[_Extent], samples: Mapping[Format, _Sample]) -> tuple[float | None, str]:
    """Seconds of audio to be annotated, and how they are known; None where nothing tells."""
    timed = sum(e.timed for e in extents)
    mean = sum(e.seconds for e in extents) / timed if timed else _mean(samples.get(Format.MANIFEST))
    total, unknown = 0.0, 0
    for extent in extents:
        shard = extent.shard
        sample = samples.get(shard.format)
        if shard.format is Format.MANIFEST and mean is not None:
            total += (extent.seconds + mean * ((extent.clips or 0) - extent.timed)) * extent.left
        elif shard.format is not Format.MANIFEST and sample is not None and sample.size:
            total += sample.seconds / sample.size * shard.size * extent.left
        else:
            unknown += 1
    read = sum(sample.clips for sample in samples.values())
    basis = [f"the durations that manifests give {timed:,} clips"] if timed else []
    if read:
        basis.append(f"the headers of {read:,} clips, by size for all of them")
    said = "from " + " and ".join(basis) if basis else "no header could be read"
    if unknown and basis:
        said += f"; without {unknown:,} shards of whose clips no header could be read"
    return (total if basis else None), said


def _mean_clip_s(extents: Iterable[_Extent], samples: Mapping[Format, _Sample]) -> float | None:
    clips = sum(e.timed for e in extents) + sum(sample.clips for sample in samples.values())
    seconds = sum(e.seconds for e in extents) + sum(sample.seconds for sample in samples.values())
    return seconds / clips if clips else None


def _mean(sample: _Sample | None) -> float | None:
    return sample.seconds / sample.clips if sample and sample.clips else None


def _config(model: str, storage: Storage) -> Wav2Vec2BertConfig:
    try:
        if "://" in model or Path(model).expanduser().is_dir():
            text = storage.read_bytes(join(storage.normalise(model), CONFIG_NAME))
            return Wav2Vec2BertConfig.from_dict(json.loads(text))
        return Wav2Vec2BertConfig.from_pretrained(model)
    except Exception as problem:
        raise JobError(f"model {model}: its {CONFIG_NAME} cannot be read: {problem}") from problem


# For the eye


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for name, layout, *numbers in rows:
        cells = [name.ljust(widths[0]), layout.ljust(widths[1])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[2:], strict=True)]
        yield "  ".join(cells).rstrip()


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count:,}"


def _hours(hours: float | None) -> str:
    if hours is None:
        return "?"
    return (
        f"{hours:,.1f} h"
        if hours >= 1
        else f"{hours * 60:.1f} min"
        if hours * 60 >= 1
        else f"{hours * 3600:.1f} s"
    )
