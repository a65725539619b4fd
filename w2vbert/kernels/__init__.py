"""Kernels of our own, for passes without gradients on GPUs, and the choice between them and PyTorch's.

Triton is imported with the first pass that uses it, never with this package.
"""

from w2vbert.kernels.backend import BackendError, available, triton_runs

__all__ = ["BackendError", "available", "triton_runs"]
