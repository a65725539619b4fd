"""Which code runs attention and convolution: PyTorch's operators, or kernels of our own in Triton."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn

SWITCH = "W2VBERT_BACKEND"
BACKENDS = ("torch", "triton")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_OLDEST = (8, 0)  # compute capability, of what Triton supports

_logger = logging.getLogger("w2vbert")


class BackendError(RuntimeError):
    """`W2VBERT_BACKEND` names no backend, or one that cannot run here."""


def triton_runs(*tensors: Tensor) -> bool:
    """Whether Triton's kernels take these tensors, all that a kernel would read.

    `W2VBERT_BACKEND` (`torch` or `triton`) decides; where it is not set, Triton on GPUs that can, PyTorch
    elsewhere. Whatever it says, PyTorch's operators run where a gradient is wanted, a graph is compiled,
    traced or exported, or the tensors are none of Triton's: of several devices, in double precision, of
    subclasses.

    Raises:
        BackendError: `W2VBERT_BACKEND` names no backend, or one that cannot run on the tensors' device.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return False
    device, forced = tensors[0].device, os.environ.get(SWITCH, "")
    if forced not in ("", *BACKENDS):
        raise BackendError(f"{SWITCH} is {forced!r}; it can be {' or '.join(BACKENDS)}, or not set")
    if forced == "torch" or (not forced and device.type != "cuda") or not _are_served(tensors):
        return False
    problem = _problem(device)
    if problem is None:
        return True
    if forced:
        raise BackendError(f"{SWITCH}=triton, but Triton's kernels cannot run on {device}: {problem}")
    _warn(device, problem)
    return False


def available(device: torch.device) -> bool:
    """Whether Triton's kernels can run on a device."""
    return _problem(device) is None


def _are_served(tensors: Sequence[Tensor]) -> bool:
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not wants_gradient and all(
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype in _DTYPES
        and tensor.device == tensors[0].device
        for tensor in tensors
    )


@cache
def _warn(device: torch.device, problem: str) -> None:
    _logger.warning("PyTorch's operators run on %s: Triton's kernels cannot: %s", device, problem)


@cache
def _problem(device: torch.device) -> str | None:
    """Why the kernels cannot run on a device, found out by running them; None where they can."""
    try:
        from w2vbert.kernels import probe
    except ImportError as missing:
        return f"Triton cannot be imported ({missing})"
    if device.type != "cuda":
        return None if probe.INTERPRETED else "they need a GPU; TRITON_INTERPRET=1 interprets them, for tests"
    capability = torch.cuda.get_device_capability(device)
    if torch.version.hip is None and capability < _OLDEST:
        have, need = (".".join(map(str, version)) for version in (capability, _OLDEST))
        return f"its compute capability is {have}, and Triton needs {need}"
    try:
        probe.run(device)
    except Exception as problem:  # of a compiler, a linker, a driver: PyTorch's operators need none of them
        return f"a first pack failed ({type(problem).__name__}: {problem})"
    return None
