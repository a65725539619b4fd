"""What a result was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe(date: str) -> str:
    """One line for the head of a result file: date, processor, threads, versions."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return (
        f"{date}; {device}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) used; "
        f"torch {torch.__version__}, transformers {version('transformers')}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(fields.get("flags", "").split())
    return f"{fields.get('model name', platform.machine())} ({', '.join(sorted(flags))})"
