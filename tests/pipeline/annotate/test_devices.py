"""What failures say of the device, in the words of torch 2.11, CUDA 13, cuBLAS, cuDNN and NVML."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.annotate.devices import (
    cuda_problem,
    device_lost,
    has_bfloat16,
    load_errors,
    open_device,
    says_lost,
    says_out_of_memory,
)
from pipeline.errors import JobError

# torch ends each of its CUDA errors with these lines, whatever the error.
ADVICE = """
Search for `cudaErrorAssert' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html \
for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be \
incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
GEMM = "when calling `cublasSgemm( handle, opa, opb, m, n, k, &alpha, a, lda, b, ldb, &beta, c, ldc)`"

LOST = [
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: misaligned address",
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: uncorrectable NVLink error detected during the execution",
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA error: unknown error",
    "CUDA driver error: device kernel image is invalid",
    f"CUDA error: CUBLAS_STATUS_EXECUTION_FAILED {GEMM}",
    f"CUDA error: CUBLAS_STATUS_INTERNAL_ERROR {GEMM}",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDART",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
    "cuFFT error: CUFFT_EXEC_FAILED",
    "cusolver error: CUSOLVER_STATUS_EXECUTION_FAILED, when calling `cusolverDnSgetrf(handle)`",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1154, please',
    "NVML: GPU is lost",
    "Unable to determine the device handle for GPU 0000:41:00.0: GPU is lost.  Reboot the system",
    "HIP error: the operation cannot be performed in the present state",
]
OUT_OF_MEMORY = [
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)",
    "std::bad_alloc",
]
NEITHER = [
    "CUDA error: invalid configuration argument",
    "CUDA error: invalid argument",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: too many resources requested for launch",
    "CUDA error: operation not supported",
    f"CUDA error: CUBLAS_STATUS_NOT_SUPPORTED {GEMM}",
    f"CUDA error: CUBLAS_STATUS_INVALID_VALUE {GEMM}",
    "cuDNN error: CUDNN_STATUS_BAD_PARAM",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
    "mat1 and mat2 shapes cannot be multiplied (3x160 and 80x48)",
    "the clip has no allocation of speakers",
]


def raised_by_torch(text: str, code: int) -> torch.AcceleratorError:
    problem = torch.AcceleratorError(text + ADVICE)
    problem.error_code = code  # as torch sets it where it raises the error
    return problem


@pytest.mark.parametrize("text", LOST)
def test_lost(text: str) -> None:
    for problem in (RuntimeError(text), torch.AcceleratorError(text + ADVICE)):
        assert says_lost(problem)
        assert not says_out_of_memory(problem)
        assert device_lost(problem, torch.device("cpu"))


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_out_of_memory(text: str) -> None:
    for problem in (RuntimeError(text), RuntimeError(text + ADVICE)):
        assert says_out_of_memory(problem)
        assert not says_lost(problem)


@pytest.mark.parametrize("text", NEITHER)
def test_neither(text: str) -> None:
    """Failures of the one call: the device is as it was."""
    for problem in (RuntimeError(text), RuntimeError(text + (ADVICE if text.startswith("CUDA") else ""))):
        assert not says_lost(problem)
        assert not says_out_of_memory(problem)


def test_the_code_counts_before_the_text() -> None:
    assert says_lost(raised_by_torch("CUDA error: whatever CUDA will say of it", 700))
    assert says_lost(raised_by_torch("CUDA error: whatever CUDA will say of it", 214))
    assert not says_lost(raised_by_torch("CUDA error: whatever CUDA will say of it", 9))
    memory = raised_by_torch("CUDA error: whatever CUDA will say of it", 2)
    assert says_out_of_memory(memory)
    assert not says_lost(memory)


def test_types_tell() -> None:
    assert says_out_of_memory(MemoryError())
    assert says_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert says_lost(torch.AcceleratorError("words of another accelerator"))


def test_a_failure_that_another_came_from() -> None:
    def wrapped(inner: Exception, *, handled: bool) -> Exception:
        try:
            try:
                raise inner
            except Exception as problem:
                if handled:
                    raise KeyError("in the handler") from None
                raise ValueError("the head failed") from problem
        except Exception as outer:
            return outer

    for handled in (False, True):
        assert says_lost(wrapped(RuntimeError(LOST[0]), handled=handled))
        assert says_out_of_memory(wrapped(MemoryError(), handled=handled))
        assert not says_lost(wrapped(RuntimeError(NEITHER[0]), handled=handled))


def test_an_allocation_that_fails_here_and_now() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    assert says_out_of_memory(caught.value)


def test_the_device_asked_for() -> None:
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (MemoryError("std::bad_alloc"), "do not fit the memory of its cpu device: std::bad_alloc; choose a"),
        (RuntimeError(LOST[0] + ADVICE), f"a model actor's device failed: {LOST[0]} (NVIDIA driver"),
    ],
)
def test_a_device_that_fails_while_models_are_loaded(problem: Exception, said: str) -> None:
    with pytest.raises(JobError) as caught, load_errors(torch.device("cpu")):
        raise problem
    assert said in str(caught.value)
    with pytest.raises(KeyError), load_errors(torch.device("cpu")):
        raise KeyError("some weight")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there_is_told_with_versions() -> None:
    with pytest.raises(JobError) as caught:
        open_device("cuda")
    message = str(caught.value)
    assert message == f"a model actor cannot use the GPU that it was given: {cuda_problem()}"
    assert "NVIDIA driver none" in message or "NVIDIA driver 5" in message
    assert f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda or 'none'}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("flags", "able"),
    [("fpu avx2 avx512f", False), ("avx512f avx512_bf16 avx512_vnni", True), ("amx_tile amx_bf16", True)],
)
def test_processors_with_units_for_bfloat16(
    flags: str, able: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "cpuinfo"
    monkeypatch.setattr("pipeline.annotate.devices._PROCESSOR", told)
    assert not has_bfloat16("cpu")  # another system, which says nothing
    told.write_text(f"processor\t: 0\nmodel name\t: avx512_bf16_like\nflags\t\t: {flags}\n")
    assert has_bfloat16("cpu") == able


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_no_gpu_has_no_units() -> None:
    assert not has_bfloat16("cuda")
