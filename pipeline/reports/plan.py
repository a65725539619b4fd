"""`--plan`: what there is to do, how much audio that is and how long it takes, without doing any of it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
import soundfile

from pipeline.corpus.clips import Shard
from pipeline.corpus.columns import Passthrough
from pipeline.corpus.readers import READERS
from pipeline.corpus.readers.base import Extent
from pipeline.errors import JobError
from pipeline.reports.cost import Costs, earlier_speed, estimated_speed
from pipeline.reports.summary import format_lines
from pipeline.spec import JobSpec
from pipeline.storage import Storage
from pipeline.table.ledger import Ledger
from pipeline.table.log.plans import Work

_LISTED = 20
_THREADS = 16  # storage far away answers slowly, but many at once
_SAMPLED_SHARDS = 4  # of each layout
_SAMPLED_CLIPS = 8  # of each of these shards
_SAMPLED_FILES = 32
_BLOCK_BYTES = 256 << 10  # a header needs little, and s3fs would fetch 50 MB
_NO_DEVICE = "not estimated: the cluster has no GPU that is free to be measured, and no earlier run tells"
_NOTHING = Passthrough(pa.schema([]), frozenset())


@dataclass(frozen=True)
class _ShardExtent:
    """How much a shard holds, as its reader tells, and how many of its clips have rows."""

    shard: Shard
    extent: Extent
    done: int

    @property
    def left(self) -> float:
        """The share of its clips that is to be done."""
        clips = self.extent.clips
        return max(0, clips - self.done) / clips if clips else 1.0


@dataclass(frozen=True)
class _HeaderSample:
    """Clips of one layout whose headers were read."""

    clips: int = 0
    seconds: float = 0.0
    size: int = 0


@dataclass(frozen=True)
class ShardPlan:
    """A shard to read: what it holds (None: only reading tells), and how many of its clips have rows."""

    name: str
    layout: str
    bytes: int
    clips: int | None
    done: int


@dataclass(frozen=True)
class JobPlan:
    """What a job would do.

    Attributes:
        lines: what the job would say before it starts.
        hours: of audio to be annotated; None where nothing tells. `hours_basis` says how it is known.
        device_hours: of one model actor's device, an estimate.
    """

    output: str
    lines: Sequence[str]
    where: str | None
    limit: int | None
    shards: Sequence[ShardPlan]
    shards_skipped: int
    hours: float | None
    hours_basis: str
    device_hours: float | None = None
    device_hours_basis: str | None = None

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @property
    def clips(self) -> int:
        """To be annotated, of the shards that can be counted."""
        return sum(max(0, shard.clips - shard.done) for shard in self.shards if shard.clips is not None)

    @property
    def uncounted_shards(self) -> int:
        return sum(shard.clips is None for shard in self.shards)

    def as_json(self) -> dict[str, Any]:
        """With the sums."""
        sums = {"bytes": self.bytes, "clips": self.clips, "uncounted_shards": self.uncounted_shards}
        return asdict(self) | sums


def plan_work(spec: JobSpec, work: Work, table: Ledger, costs: Costs, lines: Sequence[str]) -> JobPlan:
    """What there is to do and what it costs: from listings, footers, manifests and a few headers."""
    storage = table.storage
    with ThreadPoolExecutor(_THREADS) as threads:
        extents = list(threads.map(partial(_extent, work=work, storage=storage), work.shards))
        samples = {
            layout: _sample([e.shard for e in extents if e.shard.format == layout], storage, threads)
            for layout in READERS
            if any(e.shard.format == layout and e.extent.timed == 0 for e in extents)
        }
    seconds, basis = _audio(extents, samples)
    device_hours = speed = None
    if seconds:
        clip_s = min(spec.compute.window_s, _mean_clip_s(extents, samples) or spec.compute.window_s)
        speed = earlier_speed(table) or estimated_speed(costs, clip_s, spec.compute.dtype)
        device_hours = seconds / 3600 / speed.audio_s_per_s if speed else None
    return JobPlan(
        output=table.output,
        lines=lines,
        where=spec.corpus.where,
        limit=spec.corpus.limit,
        shards=[
            ShardPlan(e.shard.name, e.shard.format, e.shard.size, e.extent.clips, e.done) for e in extents
        ],
        shards_skipped=work.skipped,
        hours=None if seconds is None else seconds / 3600,
        hours_basis=basis,
        device_hours=device_hours,
        device_hours_basis=speed.basis if speed else _NO_DEVICE if seconds else None,
    )


def format_plan(plan: JobPlan) -> str:
    """The plan as a person reads it."""
    if not plan.shards:
        return "\n".join([*plan.lines, "nothing is new"])
    shown = [
        (shard.name, shard.layout, _size(shard.bytes), _count(shard.clips), _count(shard.done))
        for shard in plan.shards[:_LISTED]
    ]
    lines = [*plan.lines, "", *_columns([("shard", "layout", "size", "clips", "done"), *shown])]
    if more := len(plan.shards) - len(shown):
        lines.append(f"… and {more:,} more")
    clips = f"{plan.clips:,}"
    if plan.uncounted_shards:
        which = "the shard" if plan.uncounted_shards == 1 else f"the {plan.uncounted_shards:,} shards"
        clips += f", and those of {which} marked ?"
    totals = [("to read", f"{len(plan.shards):,} shards, {_size(plan.bytes)}"), ("clips", clips)]
    if plan.where:
        totals.append(("", "all of these shards, before --where, which is applied while reading"))
    if plan.limit:
        totals.append(("", f"at most {plan.limit:,} of them in this run (--limit)"))
    totals += [("audio", _hours(plan.hours)), ("", plan.hours_basis)]
    totals.append(("device-hours", f"{_hours(plan.device_hours)} of one model actor's device, an estimate"))
    if plan.device_hours_basis:
        totals.append(("", plan.device_hours_basis))
    return "\n".join([*lines, "", format_lines(totals, width=14)])


# How much audio


def _extent(shard: Shard, work: Work, storage: Storage) -> _ShardExtent:
    extent = READERS[shard.format].extent(shard, storage)
    if not 0 <= extent.seconds < math.inf:  # a manifest may say anything
        extent = replace(extent, seconds=0.0, timed=0)
    return _ShardExtent(shard, extent, len(work.done.get(shard.uri, ())))


def _sample(shards: Sequence[Shard], storage: Storage, threads: ThreadPoolExecutor) -> _HeaderSample:
    """A few clips of a few shards, spread over all of them."""
    wanted = _SAMPLED_FILES if shards and READERS[shards[0].format].one_clip else _SAMPLED_SHARDS
    spread = shards[:: max(1, -(-len(shards) // wanted))]
    read = [header for some in threads.map(partial(_headers, storage=storage), spread) for header in some]
    return _HeaderSample(len(read), sum(seconds for seconds, _ in read), sum(size for _, size in read))


def _headers(shard: Shard, storage: Storage) -> list[tuple[float, int]]:
    """(seconds, bytes) of the first clips of a shard; those whose header cannot be read are left out."""
    clips = next(READERS[shard.format].tables(shard, storage, _NOTHING), None)
    found = []
    for clip in clips.slice(0, _SAMPLED_CLIPS).to_pylist() if clips is not None else []:
        try:
            if clip["audio"] is not None:
                seconds, size = soundfile.info(io.BytesIO(clip["audio"])).duration, len(clip["audio"])
            elif clip["source"] is None:
                continue
            else:
                with storage.open(clip["source"], block_size=_BLOCK_BYTES) as handle:
                    seconds, size = soundfile.info(handle).duration, handle.seek(0, io.SEEK_END)
        except (OSError, JobError, soundfile.SoundFileError):
            continue
        if clip["start_s"] is not None:
            seconds = clip["length_s"] or max(0.0, seconds - clip["start_s"])
        found.append((seconds, size))
    return found


def _audio(shards: Sequence[_ShardExtent], samples: Mapping[str, _HeaderSample]) -> tuple[float | None, str]:
    """Seconds of audio to be annotated, and how they are known; None where nothing tells."""
    timed = sum(held.extent.timed for held in shards)
    total, unknown = 0.0, 0
    for held in shards:
        shard, extent = held.shard, held.extent
        sample = samples.get(shard.format)
        # The size of a shard that only lists files says nothing about their audio.
        lists_files = READERS[shard.format].lists_files
        mean = sum(held.extent.seconds for held in shards) / timed if timed else _mean(sample)
        if lists_files and mean is not None:
            total += (extent.seconds + mean * ((extent.clips or 0) - extent.timed)) * held.left
        elif not lists_files and sample is not None and sample.size:
            total += sample.seconds / sample.size * shard.size * held.left
        else:
            unknown += 1
    read = sum(sample.clips for sample in samples.values())
    basis = [f"the durations that manifests give {timed:,} clips"] if timed else []
    if read:
        basis.append(f"the headers of {read:,} clips, by size for all of them")
    text = "from " + " and ".join(basis) if basis else "no header could be read"
    if unknown and basis:
        text += f"; without {unknown:,} shards of whose clips no header could be read"
    return (total if basis else None), text


def _mean_clip_s(shards: Sequence[_ShardExtent], samples: Mapping[str, _HeaderSample]) -> float | None:
    clips = sum(held.extent.timed for held in shards) + sum(sample.clips for sample in samples.values())
    seconds = sum(held.extent.seconds for held in shards) + sum(sample.seconds for sample in samples.values())
    return seconds / clips if clips else None


def _mean(sample: _HeaderSample | None) -> float | None:
    return sample.seconds / sample.clips if sample and sample.clips else None


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
