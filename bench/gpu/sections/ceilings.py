"""What this card can do: memory, products of matrices in the encoder's shapes; what is installed."""

from __future__ import annotations

import platform
import subprocess
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch

from bench.gpu.section import Section, run
from w2vbert.kernels.backend import _problem

PACKAGES = ("torch", "triton", "transformers", "numpy", "pyarrow")
SHAPES = {"up": (1024, 4096), "down": (4096, 1024), "query, key, value": (1024, 3072), "gate": (1024, 2048)}


def measure(section: Section) -> None:
    section.add(what="machine", **_machine(section))
    _copy(section, 1 << (12 if section.smoke else 32))
    frames, shrink = (64, 32) if section.smoke else (52_000, 1)
    for name, (inner, outer) in SHAPES.items():
        _product(section, name, (frames, inner // shrink, outer // shrink))
    _three_products(section, frames, 1024 // shrink)
    if not section.smoke:
        _float8(section, frames)


def _machine(section: Section) -> dict[str, object]:
    told: dict[str, object] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            told[package] = version(package)
        except PackageNotFoundError:
            told[package] = None
    if section.device.type == "cuda":
        fields = "name,driver_version,clocks.max.sm,power.limit,memory.total"
        asked = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        told["card"] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    told["triton_problem"] = _problem(section.device)
    return told


def _copy(section: Section, size: int) -> None:
    source = torch.empty(size, dtype=torch.uint8, device=section.device)
    target = torch.empty_like(source)
    spent = section.median(lambda: target.copy_(source))
    section.add(what="copy", terabytes_per_s=round(2 * size / spent / 1e9, 3))


def _product(section: Section, name: str, sizes: tuple[int, int, int]) -> None:
    rows, inner, outer = sizes
    frames = torch.randn(rows, inner, dtype=section.dtype, device=section.device)
    weight = torch.randn(outer, inner, dtype=section.dtype, device=section.device)
    # Several in one measurement: a card that has cooled down runs faster than it can for long.
    spent = section.median(lambda: [frames @ weight.T for _ in range(20)]) / 20
    section.add(what="bfloat16", shape=name, tflops=round(2 * rows * inner * outer / spent / 1e9, 1))


def _three_products(section: Section, rows: int, width: int) -> None:
    """What one product for queries, keys and values would save over three."""
    frames = torch.randn(rows, width, dtype=section.dtype, device=section.device)
    one = torch.randn(3 * width, width, dtype=section.dtype, device=section.device)
    three = [part.contiguous() for part in one.chunk(3)]
    together = section.median(lambda: frames @ one.T)
    apart = section.median(lambda: [frames @ part.T for part in three])
    section.add(what="query, key, value", one_ms=round(together, 3), three_ms=round(apart, 3))


def _float8(section: Section, rows: int) -> None:
    for name, (inner, outer) in SHAPES.items():
        frames = torch.randn(rows, inner, device=section.device).to(torch.float8_e4m3fn)
        weight = torch.randn(outer, inner, device=section.device).to(torch.float8_e4m3fn)
        scales = (torch.ones(rows, 1, device=section.device), torch.ones(1, outer, device=section.device))
        product = partial(torch._scaled_mm, frames, weight.T, *scales, out_dtype=torch.bfloat16)
        spent = section.median(product)
        section.add(what="float8", shape=name, tflops=round(2 * rows * inner * outer / spent / 1e9, 1))


if __name__ == "__main__":
    run("ceilings", measure)
