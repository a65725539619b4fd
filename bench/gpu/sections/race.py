"""The encoder against the peer's on four mixes of lengths: passes in turn, medians by the card's clock."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.gpu.compiled import use_compiled
from bench.gpu.flex import use_flex
from bench.gpu.models import (
    FRAMES_A_SECOND,
    backend,
    batches_of,
    build,
    clips_of,
    encode_all,
    flops,
    mixes,
    packs_of,
    peer_of,
)
from bench.gpu.section import Section, run
from w2vbert.model import Wav2Vec2BertModel

ROUNDS = 5
BATCH_SIZES = (16, 32, 64)
Pass = Callable[[], object]
Ours = dict[str, tuple[Wav2Vec2BertModel, str]]


def measure(section: Section) -> None:
    with torch.inference_mode():
        model = build(section)
        peer = peer_of(model) if section.can_import("transformers") else None
        ours = contenders(section, model)
        lengths_of = mixes(section)
        for number, (mix, lengths) in enumerate(lengths_of.items()):
            clips = clips_of(lengths, section)
            until = section.left_s * (1 - 1 / (len(lengths_of) - number))
            passes = {name: _of_ours(held, clips) for name, held in ours.items()}
            if peer is not None:
                for attention in ("eager", "sdpa"):
                    size = _best_size(section, peer, attention, clips)
                    if size is not None:
                        passes[f"peer {attention}, batches of {size}"] = _of_peer(
                            peer, attention, clips, size
                        )
            work = flops(model.config, lengths)
            for name, found in _race(section, passes, until).items():
                section.add(mix=mix, contender=name, clips=len(clips), **_rates(found, sum(lengths), work))


def contenders(section: Section, model: Wav2Vec2BertModel) -> Ours:
    compiler = "eager" if section.smoke else "inductor"
    return {
        "ours, PyTorch": (model, "torch"),
        "ours, Triton": (model, "triton"),
        "ours, Triton, compiled": (use_compiled(copy.deepcopy(model), compiler=compiler), "triton"),
        "ours, FlexAttention": (use_flex(copy.deepcopy(model), compile=not section.smoke), "triton"),
    }


def _of_ours(held: tuple[Wav2Vec2BertModel, str], clips: list[Tensor]) -> Pass:
    model, backed = held
    packs = packs_of(clips)

    def run_pass() -> object:
        with backend(backed):
            return encode_all(model, packs)

    return run_pass


def _of_peer(peer: Any, attention: str, clips: list[Tensor], size: int) -> Pass:
    batches = batches_of(clips, size)

    def run_pass() -> object:
        peer.set_attn_implementation(attention)
        return [peer(batch.features, attention_mask=batch.mask).last_hidden_state for batch in batches]

    return run_pass


def _best_size(section: Section, peer: Any, attention: str, clips: list[Tensor]) -> int | None:
    """The batch size that is fastest for the peer, of those that fit."""
    spent = {}
    for size in BATCH_SIZES:
        run_pass = _of_peer(peer, attention, clips, size)
        try:
            run_pass()
            spent[size] = section.milliseconds(run_pass)
        except torch.OutOfMemoryError:
            break
    return min(spent, key=lambda size: spent[size]) if spent else None


def _race(section: Section, passes: dict[str, Pass], until: float) -> dict[str, dict[str, Any]]:
    """Rounds of all contenders, as many as there is time for: milliseconds and peak memory of each."""
    found: dict[str, dict[str, Any]] = {name: {"ms": []} for name in passes}
    for name, run_pass in passes.items():  # kernels are compiled, memory is kept
        try:
            if section.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            run_pass()
            if section.device.type == "cuda":
                torch.cuda.synchronize()
                found[name]["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        except Exception as problem:  # one contender's failure is not another's
            found[name]["failed"] = f"{type(problem).__name__}: {problem}"[:300]
    running = [name for name in passes if "failed" not in found[name]]
    for number in range(1 if section.smoke else ROUNDS):
        if number and section.left_s < until:
            break
        for name in running:
            found[name]["ms"].append(section.milliseconds(passes[name]))
    return found


def _rates(found: dict[str, Any], frames: int, work: float) -> dict[str, Any]:
    if not found["ms"]:
        return {"failed": found["failed"]}
    spent = statistics.median(found["ms"])
    return {
        "ms": round(spent, 2),
        "rounds": len(found["ms"]),
        "spread": round(max(found["ms"]) / min(found["ms"]), 2),
        "rtfx": round(frames / FRAMES_A_SECOND / spent * 1e3),
        "tflops": round(work / spent / 1e9, 1),
        "peak_gb": found.get("peak_gb"),
    }


if __name__ == "__main__":
    run("race", measure)
