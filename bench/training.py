"""One training step of ours against the peer's: time and memory, alternated, in one process.

    python -m bench.training --date 2026-11-28 --output bench/results/training.md

Ours is the step of `pipeline.training.loop`: packed clips, CTC loss, gradients clipped, AdamW. The peer has
the same weights and takes the same clips, padded, in its eager and its sdpa attention. Losses and gradients
of all are compared before anything is timed. `--run OUTPUT` of a finished `jobs/finetune.py` adds what part
of its second epoch waited for data.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from bench.machine import describe
from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.group import Group
from pipeline.training.loop.step import Draw, Gradients
from pipeline.training.model.build import build
from pipeline.training.model.learner import Learner
from pipeline.training.optimiser.groups import Rates, make_optimiser
from w2vbert.packing import Packed

SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 384}
CASES: dict[str, dict[str, Any]] = {"3 layers × 96": SMALL, "1 layer × 1024": {"num_hidden_layers": 1}}
PEERS = ("eager", "sdpa")
COMMON = {"layerdrop": 0.0, "ctc_loss_reduction": "mean", "ctc_zero_infinity": True, "pad_token_id": 0}
STILL = dict.fromkeys(("final_dropout", "conformer_conv_dropout", "mask_time_prob"), 0.0)
LENGTHS = [int(500 * share) for share in np.linspace(0.25, 1.0, 8)]
VOCABULARY, TOKENS = 32, 20
RATE, LARGEST_NORM = 5e-5, 1.0
MEMORY_REPEATS = 3
TOLERANCE = 1e-4  # of the norm of all gradients
MB = 1e6


@dataclass
class Contender:
    """A model that can be taken a step further."""

    gradients: Callable[[], float]
    model: nn.Module
    optimiser: torch.optim.Optimizer
    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    def step(self) -> None:
        self.gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), LARGEST_NORM)
        self.optimiser.step()
        self.model.zero_grad(set_to_none=True)

    def measure_time(self, device: torch.device) -> None:
        started = _now(device)
        self.step()
        self.seconds.append(_now(device) - started)

    def measure_memory(self, device: torch.device) -> None:
        before = _start_of_peak(device)
        self.step()
        self.bytes.append(_peak(device) - before)


def contenders(fields: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Contender]:
    """Ours and the peers, of the same weights, with the same clips."""
    torch.manual_seed(0)
    ours = build({**COMMON, **fields}, {"transcribe": {"vocab_size": VOCABULARY}}, {}).learner.to(device)
    clips = [torch.randn(length, 160) for length in LENGTHS]
    targets = list(torch.randint(1, VOCABULARY, (len(clips), TOKENS)))
    autocast = None if dtype == torch.float32 else dtype
    found = {"ours": _ours(ours, clips, targets, autocast)}
    model = ours.results["transcribe"]
    for attention in PEERS:
        config = transformers.Wav2Vec2BertConfig.from_dict(model.config.to_dict())
        peer = transformers.Wav2Vec2BertForCTC(config).train()
        peer.load_state_dict(model.state_dict())
        peer.set_attn_implementation(attention)
        found[attention] = _peer(peer.to(device), clips, targets, autocast)
    return found


def _ours(
    learner: Learner, clips: Sequence[Tensor], targets: Sequence[Tensor], autocast: torch.dtype | None
) -> Contender:
    device = learner.encoder.device
    lengths = tuple(map(len, clips))
    ids = [f"clip {number}" for number in range(len(clips))]
    batch = Batch(
        Pack(0, 0, np.arange(len(clips))),
        0,
        ids,
        [1.0] * len(clips),
        Packed(torch.cat(tuple(clips)), lengths),
        {"transcribe": targets},
    )
    gradients, draw = Gradients(learner, Group(device=device)), Draw({"transcribe": 1.0}, autocast=autocast)

    def run() -> float:
        numbers = gradients.of([batch], draw).numbers
        return numbers["transcribe.total"] / numbers["transcribe.count"]

    layers = len(learner.encoder.encoder.layers)
    named = dict(learner.named_parameters())
    return Contender(run, learner, make_optimiser(named, layers, (), Rates(RATE, RATE)))


def _peer(
    peer: Any, clips: Sequence[Tensor], targets: Sequence[Tensor], autocast: torch.dtype | None
) -> Contender:
    device = peer.device
    features = nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    mask = torch.arange(features.shape[1]) < torch.tensor([len(clip) for clip in clips])[:, None]
    labels = torch.stack(list(targets))

    def run() -> float:
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            loss = peer(features.to(device), attention_mask=mask.to(device), labels=labels.to(device)).loss
        loss.backward()
        return float(loss.detach())

    return Contender(run, peer, torch.optim.AdamW(peer.parameters(), lr=RATE, betas=(0.9, 0.98)))


def compare(fields: dict[str, Any]) -> None:
    """In float32 on the CPU, without anything random.

    Raises:
        RuntimeError: ours differs from a peer.
    """
    held = contenders({**fields, **STILL}, torch.device("cpu"), torch.float32)
    losses = {name: contender.gradients() for name, contender in held.items()}
    ours = held["ours"].model
    assert isinstance(ours, Learner)
    model = ours.results["transcribe"]
    mine = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name in PEERS:
        theirs = {key: p.grad for key, p in held[name].model.named_parameters() if p.grad is not None}
        size = torch.stack([gradient.norm() for gradient in theirs.values()]).norm()
        apart = torch.stack([(mine[key] - gradient).norm() for key, gradient in theirs.items()]).norm() / size
        if apart > TOLERANCE or abs(losses["ours"] / losses[name] - 1) > TOLERANCE:
            raise RuntimeError(f"ours differs from {name}: {losses}, gradients by {apart:.1e}")


def race(
    fields: dict[str, Any], device: torch.device, dtype: torch.dtype, repeats: int
) -> dict[str, Contender]:
    held = contenders(fields, device, dtype)
    for contender in held.values():  # memory that allocators keep, and the state of AdamW
        contender.step()
    for _ in range(repeats):
        for contender in held.values():
            contender.measure_time(device)
    return held


def weigh(fields: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, list[int]]:
    held = contenders(fields, device, dtype)
    for contender in held.values():
        contender.step()
    for _ in range(MEMORY_REPEATS):
        for contender in held.values():
            contender.measure_memory(device)
    return {who: contender.bytes for who, contender in held.items()}


def weighed(name: str, args: argparse.Namespace) -> dict[str, list[int]]:
    """What `weigh` finds in a process whose heap gives back at once what is freed, from 1 MiB on. It keeps
    that otherwise, by how it happens to be cut: steps of one model then differ by a fifth."""
    command = [sys.executable, "-m", "bench.training", "--weigh", name, "--device", args.device]
    command += ["--dtype", args.dtype, "--threads", str(args.threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    printed = subprocess.run(command, check=True, env=environment, capture_output=True, text=True).stdout
    found: dict[str, list[int]] = json.loads(printed.splitlines()[-1])
    return found


def waiting(run: Path, epoch: int = 1) -> tuple[float, float]:
    """Seconds of an epoch (from 0) of a run, and those of them that waited for data."""
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["kind"] == "step" and event["epoch"] == epoch]
    return sum(step["seconds"] for step in steps), sum(step["waited_s"] for step in steps)


def _now(device: torch.device) -> float:
    """Of the GPU's clock, which is the wall's; of CPUs, what they worked for this process alone."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def _start_of_peak(device: torch.device) -> int:
    """Begins to watch memory; what is held now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return int(torch.cuda.max_memory_allocated()) if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10


def row(name: str, held: dict[str, Contender]) -> str:
    seconds = {who: statistics.median(contender.seconds) for who, contender in held.items()}
    memory = {who: statistics.median(contender.bytes) for who, contender in held.items()}
    pairs = [
        mine / min(theirs)
        for mine, *theirs in zip(*(held[who].seconds for who in ("ours", *PEERS)), strict=True)
    ]
    times = [f"{1e3 * seconds[who]:,.0f} ms" for who in (*PEERS, "ours")]
    sizes = [f"{memory[who] / MB:,.0f} MB" for who in (*PEERS, "ours")]
    ratios = f"{min(pairs):.2f} to {max(pairs):.2f}"
    against = seconds["ours"] / min(seconds[who] for who in PEERS)
    smaller = memory["ours"] / min(memory[who] for who in PEERS)
    return f"| {' | '.join([name, *times, f'**{against:.2f}** ({ratios})', *sizes, f'**{smaller:.2f}**'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weigh", choices=CASES, help="print the memory of one case alone, as JSON")
    parser.add_argument("--run", type=Path, help="output of a finished jobs/finetune.py")
    parser.add_argument("--date", default="")
    parser.add_argument("--output", type=Path, help="markdown file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    if args.weigh:
        print(json.dumps(weigh(CASES[args.weigh], device, dtype)))
        return
    lines = ["# A training step", "", describe(args.date), ""]
    lines += [
        f"CTC, AdamW, clips of {LENGTHS[0]} to {LENGTHS[-1]} frames, {len(LENGTHS)} a batch, {args.dtype}, "
        f"`relative_key`. Medians of {args.repeats} steps of each, in alternation. Times are those that "
        "processors worked for the process, which others on the machine disturb least; memory is the peak "
        "above that before the step, in a process that gives back what is freed at once "
        "(`MALLOC_MMAP_THRESHOLD_=1048576`). Ours against the faster, and the smaller, of the peer's two.",
        "",
        "| | peer eager | peer sdpa | ours | time (of each round) | peer eager | peer sdpa | ours | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, fields in CASES.items():
        compare(fields)
        held = race(fields, device, dtype, args.repeats)
        for who, sizes in weighed(name, args).items():
            held[who].bytes = sizes
        lines.append(row(name, held))
        print(lines[-1], flush=True)
    if args.run is not None:
        seconds, waited = waiting(args.run)
        lines += ["", f"Waiting for data in epoch 2 of a run: {waited / seconds:.1%} of {seconds:.1f} s."]
        print(lines[-1])
    if args.output:
        args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
