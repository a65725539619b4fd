"""Kernels compile for GPUs, which takes none, and fit them: no registers spilled, little shared memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed: it has no wheels for this platform")

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
SMALLEST_SHARED_MEMORY = 99 * 1024  # of a program, on compute capabilities 8.6 and 8.9


def compiled(kernel: Any, arguments: dict[str, str], constants: dict[str, object], **options: Any) -> Any:
    """Of a kernel whose tensors and row lengths are multiples of 16, as they are in a model."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    capability = options.pop("capability")
    aligned = {name for name in arguments if arguments[name][0] == "*" or name.endswith("stride")}
    source = ASTSource(
        fn=kernel,
        signature={**arguments, **dict.fromkeys(constants, "constexpr")},
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def spilled(made: Any, capability: int, folder: Path) -> str:
    """What the assembler says of the registers."""
    (folder / "kernel.ptx").write_text(made.asm["ptx"])
    suffix = "a" if capability >= 90 else ""
    done = subprocess.run(
        [
            *(triton.knobs.nvidia.ptxas.path, "-v", f"--gpu-name=sm_{capability}{suffix}"),
            *(str(folder / "kernel.ptx"), "-o", "/dev/null"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "head_size", "capability"),
    [
        (torch.bfloat16, 64, 80),
        (torch.bfloat16, 64, 90),
        (torch.bfloat16, 128, 90),
        (torch.float32, 64, 80),
        (torch.float32, 128, 80),
    ],
)
def test_attention(dtype: torch.dtype, head_size: int, capability: int, tmp_path: Path) -> None:
    from w2vbert.kernels.attention import _attend, tiles_for

    tiles = tiles_for(dtype, head_size)
    strides = ("query", "key", "value", "product", "product_head", "output")
    made = compiled(
        _attend,
        {
            **dict.fromkeys(("query", "key", "value", "products", "output"), TYPES[dtype]),
            "blocks": "*i32",
            **{f"{name}_stride": "i32" for name in strides},
            "scale": "fp32",
        },
        {
            **{"HEAD": head_size, "COLUMNS": head_size, "LEFT": 64, "RIGHT": 8, "PRECISION": "ieee"},
            **{"QUERIES": tiles.queries, "KEYS": tiles.keys},
        },
        capability=capability,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    assert made.metadata.shared <= SMALLEST_SHARED_MEMORY
    assert "0 bytes spill stores" in spilled(made, capability, tmp_path)
    if dtype == torch.bfloat16:
        assert ("wgmma" if capability == 90 else "mma.sync") in made.asm["ptx"]  # the matrix units


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "capability"), [(torch.bfloat16, 80), (torch.bfloat16, 90), (torch.float32, 80)]
)
def test_convolution(dtype: torch.dtype, capability: int, tmp_path: Path) -> None:
    from w2vbert.kernels.convolution import TILES, _convolve

    made = compiled(
        _convolve,
        {
            **dict.fromkeys(("frames", "by_tap", "gain", "shift", "output"), TYPES[dtype]),
            **{"ordinals": "*i64", "total": "i32", "stride": "i32", "eps": "fp32"},
        },
        {"WIDTH": 1024, "COLUMNS": 1024, "TAPS": 31, "FRAMES": TILES.frames},
        capability=capability,
        num_warps=TILES.warps,
    )
    assert made.metadata.shared <= SMALLEST_SHARED_MEMORY
    assert "0 bytes spill stores" in spilled(made, capability, tmp_path)
