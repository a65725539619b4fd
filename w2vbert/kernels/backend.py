"""Which code runs attention and convolution: PyTorch's operators, or kernels of our own in Triton."""

from __future__ import annotations

import os
from functools import cache

import torch
from torch import Tensor, nn

SWITCH = "W2VBERT_BACKEND"
BACKENDS = ("torch", "triton")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST = (8, 0)  # compute capability, of what Triton supports


class BackendError(RuntimeError):
    """`W2VBERT_BACKEND` names no backend, or one that cannot run here."""


def triton_runs(*tensors: Tensor) -> bool:
    """Whether Triton's kernels take these tensors, all that a kernel would read.

    `W2VBERT_BACKEND` (`torch` or `triton`) decides; where it is not set, Triton on GPUs that can, PyTorch
    elsewhere. Whatever it says, PyTorch's operators run where a gradient is wanted, a graph is traced or
    exported, or the tensors are none of Triton's: of several devices, in double precision, of subclasses.
    They do under `torch.compile` too, unless Triton is forced: it then cuts the graph at its kernels.

    Raises:
        BackendError: `W2VBERT_BACKEND` names no backend, or one that cannot run on the tensors' device.
    """
    forced = os.environ.get(SWITCH, "")
    if not forced and tensors[0].device.type != "cuda":
        return False
    if forced not in ("", *BACKENDS):
        raise BackendError(f"{SWITCH} is {forced!r}; it can be {' or '.join(BACKENDS)}, or not set")
    if forced == "torch" or not _are_served(tensors):
        return False
    if torch.compiler.is_compiling() and not forced:
        return False
    problem = _problem(tensors[0].device)
    if forced and problem is not None:
        raise BackendError(
            f"{SWITCH}=triton, but Triton's kernels cannot run on {tensors[0].device}: {problem}"
        )
    return problem is None


def available(device: torch.device) -> bool:
    """Whether Triton's kernels can run on a device."""
    return _problem(device) is None


def _are_served(tensors: tuple[Tensor, ...]) -> bool:
    if torch.jit.is_tracing() or torch.compiler.is_exporting():  # type: ignore[attr-defined]
        return False
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not wants_gradient and all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype in _DTYPES
        and tensor.device == tensors[0].device
        for tensor in tensors
    )


@torch.compiler.disable
@cache
def _problem(device: torch.device) -> str | None:
    """Why Triton's kernels cannot run on a device, found out by running one; None where they can."""
    try:
        from w2vbert.kernels import probe
    except ImportError as missing:
        return f"Triton cannot be imported ({missing})"
    if device.type != "cuda" and not probe.INTERPRETED:
        return "they need a GPU; on a CPU they run under TRITON_INTERPRET=1, for tests"
    if device.type == "cuda" and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)
        if capability < _OLDEST:
            return f"compute capability {capability[0]}.{capability[1]}, and Triton needs {_OLDEST[0]}.{_OLDEST[1]}"
    try:
        probe.run(device)
    except Exception as problem:  # of a compiler, a linker or a driver; torch's operators need none of these
        return f"a first kernel failed ({type(problem).__name__}: {problem})"
    return None
