"""A training step of ours against the peer's, as `bench/training.py` races them, on the card."""

from __future__ import annotations

import statistics

import torch

from bench.gpu.section import Section, run


def measure(section: Section) -> None:
    if not section.can_import("pydantic", "fsspec", "scipy", "transformers"):
        return
    from bench.training import contenders

    dtype = torch.float32 if section.smoke else section.dtype
    layers = {} if section.smoke else {"num_hidden_layers": 24}
    held = contenders({**section.fields, **layers}, section.device, dtype)
    for contender in held.values():  # memory that allocators keep, and the state of AdamW
        contender.step()
    for _ in range(1 if section.smoke else 20):
        if section.left_s < 15:
            break
        for contender in held.values():
            contender.measure_time(section.device)
    for contender in held.values():
        contender.measure_memory(section.device)
    for name, contender in held.items():
        if contender.seconds:
            section.add(
                contender=name,
                ms=round(1e3 * statistics.median(contender.seconds), 1),
                gb=round(statistics.median(contender.bytes) / 1e9, 2),
                rounds=len(contender.seconds),
            )


if __name__ == "__main__":
    run("training", measure)
