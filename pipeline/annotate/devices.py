"""The device of a model actor: the one that was asked for; and what a failure says of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from pipeline.errors import JobError

_DRIVER = Path("/proc/driver/nvidia/version")
_PROCESSOR = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
_AMPERE = (8, 0)  # the first GPUs with bfloat16 units

# `cudaError_t` of calls that fail and leave the device as it was: an argument, a configuration, a kernel that
# the build lacks. After any other error all that this process asks of the device fails too.
_HARMLESS_CODES = frozenset({1, 9, 98, 209, 600, 701, 801})
_OUT_OF_MEMORY_CODE = 2
_HARMLESS = re.compile(
    r"invalid (argument|configuration argument|device function)|no kernel image is available|"
    r"device not ready|too many resources requested for launch|operation not supported|"
    r"_(INVALID_VALUE|NOT_SUPPORTED|ARCH_MISMATCH|BAD_PARAM\w*)\b",
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|not enough memory|bad_alloc|(can't|cannot|could not|failed to) allocate|"
    r"ALLOC(ATION)?_FAILED|STATUS_NOT_INITIALIZED",  # the handles of cuBLAS and cuDNN need memory too
    re.IGNORECASE,
)
_LOST = re.compile(
    r"(CUDA|HIP|XPU)( driver| runtime)? error|device-side assert|illegal memory access|launch failure|"
    r"uncorrectable ECC|(CUBLAS|CUDNN|CUFFT|CUSOLVER|CUSPARSE)_(STATUS_)?(EXEC|INTERNAL|MAPPING)\w*|"
    r"NVML|GPU is lost|fallen off the bus",
    re.IGNORECASE,
)


def open_device(kind: str) -> torch.device:
    """The device of this kind, "cpu" or "cuda", after a first operation on it.

    Raises:
        JobError: it cannot be used.
    """
    device = torch.device(kind)
    problem = cuda_problem() if kind == "cuda" else None
    if problem is None:
        try:
            _try(device)
            return device
        except RuntimeError as failure:
            problem = f"{_first_line(failure)} ({_versions()})"
    raise JobError(f"a model actor cannot use the GPU that it was given: {problem}")


@contextmanager
def load_errors(device: torch.device) -> Iterator[None]:
    """What the device refuses while models are loaded, as an error of the job."""
    try:
        yield
    except Exception as problem:
        if says_out_of_memory(problem):
            raise JobError(
                f"the models of an actor do not fit the memory of its {device.type} device: "
                f"{_first_line(problem)}; choose a smaller --dtype, or fewer actors a device"
            ) from problem
        if device_lost(problem, device):
            raise JobError(
                f"a model actor's device failed: {_first_line(problem)} ({_versions()})"
            ) from problem
        raise


def cuda_problem() -> str | None:
    """Why this process can use no GPU, with the versions of driver and build; None where it can."""
    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
        reason = "PyTorch sees none"
    except (RuntimeError, AssertionError) as failure:  # AssertionError: a build without CUDA
        reason = _first_line(failure)
    return f"{reason} ({_versions()})"


def has_bfloat16(kind: str) -> bool:
    """Whether the processor ("cpu"), or each GPU that this process sees ("cuda"), has units for bfloat16."""
    if kind == "cuda":
        gpus = range(torch.cuda.device_count())
        return bool(gpus) and all(torch.cuda.get_device_capability(gpu) >= _AMPERE for gpu in gpus)
    with suppress(OSError):
        return not _BFLOAT16_FLAGS.isdisjoint(_PROCESSOR.read_text("utf-8", "replace").split())
    return False


def device_lost(problem: BaseException, device: torch.device) -> bool:
    """Whether the device is of no more use to this process."""
    if says_lost(problem):
        return True
    if device.type != "cuda":
        return False
    try:
        _try(device)
    except RuntimeError as failure:
        return not says_out_of_memory(failure)
    return False


def says_lost(problem: BaseException) -> bool:
    """Whether this, or what it came from, is a failure after which a device answers no longer."""
    return any(_says_lost(one) for one in _chain(problem))


def says_out_of_memory(problem: BaseException) -> bool:
    """Whether memory could not be had, the device's or the machine's."""
    return any(_says_out_of_memory(one) for one in _chain(problem))


def _says_lost(problem: BaseException) -> bool:
    if _says_out_of_memory(problem):
        return False
    if (code := _code(problem)) is not None:
        return code not in _HARMLESS_CODES
    text = str(problem)
    lost = isinstance(problem, torch.AcceleratorError) or _LOST.search(text) is not None
    return lost and _HARMLESS.search(text) is None


def _says_out_of_memory(problem: BaseException) -> bool:
    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    if (code := _code(problem)) is not None:
        return code == _OUT_OF_MEMORY_CODE
    return _OUT_OF_MEMORY.search(str(problem)) is not None


def _code(problem: BaseException) -> int | None:
    """The `cudaError_t` of an error that torch itself raised."""
    code = getattr(problem, "error_code", None)
    return code if isinstance(problem, torch.AcceleratorError) and isinstance(code, int) else None


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        yield problem
        problem = problem.__cause__ or problem.__context__


def _try(device: torch.device) -> None:
    torch.ones(1, device=device).sum().item()


def _versions() -> str:
    driver = "none"
    with suppress(OSError):
        found = re.search(r"\s(\d+\.\d[\d.]*)\s", _DRIVER.read_text("utf-8"))
        driver = found[1] if found else "unknown"
    return (
        f"NVIDIA driver {driver}; PyTorch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'}"
    )


def _first_line(problem: BaseException) -> str:
    return str(problem).partition("\n")[0].rstrip(".")
