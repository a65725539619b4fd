"""The smallest kernel, to see whether any can be compiled and run."""

import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


@triton.jit
def _double(numbers, doubled, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)
    tl.store(doubled + places, 2 * tl.load(numbers + places))


INTERPRETED = isinstance(_double, InterpretedFunction)


def run(device: torch.device) -> None:
    """Raises whatever compiling or running raises, and `RuntimeError` where the numbers are wrong."""
    numbers = torch.arange(16, device=device)
    doubled = torch.empty_like(numbers)
    with torch.cuda.device_of(numbers):
        _double[(1,)](numbers, doubled, SIZE=16)
    if not torch.equal(doubled, 2 * numbers):
        raise RuntimeError("it gave wrong numbers")
