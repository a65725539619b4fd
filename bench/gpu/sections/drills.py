"""What breaks is said: each drill in a process of its own, which may die of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from bench.gpu.section import Section, run

NO_DEVICE = """
from pipeline.annotate.devices import open_device
from pipeline.errors import JobError
try:
    open_device("cuda")
except JobError as problem:
    assert "cannot use the GPU" in str(problem), problem
    print("told")
"""
POISONED = """
import torch
from pipeline.annotate.devices import device_lost, says_lost
try:
    torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")].sum().item()
except Exception as problem:
    assert says_lost(problem) and device_lost(problem, torch.device("cuda")), problem
    print("told")
"""
OUT_OF_MEMORY = """
import torch
from pipeline.annotate.devices import device_lost, says_out_of_memory
device = torch.device(DEVICE)
try:
    torch.empty(1 << 50, dtype=torch.uint8, device=device)
except Exception as problem:
    assert says_out_of_memory(problem) and not device_lost(problem, device), problem
    print("told")
"""
# Triton builds a launcher with the machine's C compiler: without one, passes go on with PyTorch's operators.
NO_COMPILER = """
import logging, torch
logging.basicConfig()
from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertModel
sizes = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
model = Wav2Vec2BertModel(Wav2Vec2BertConfig(**sizes)).eval().to("cuda")
with torch.inference_mode():
    assert model(torch.zeros(1, 9, 160, device="cuda")).last_hidden_state.isfinite().all()
print("told")
"""
# Memory for half a pack: its halves are annotated, and no clip is an error.
BALLAST = """
import sys, torch
from pathlib import Path
from bench.gpu.actor import make_annotator, make_checkpoints, make_table
from bench.gpu.section import Section
section = Section("ballast", Path("none"), False, 60.0)
annotate = make_annotator(section, make_checkpoints(section, ["transcribe"]))
annotate(make_table([500] * 4))
table = make_table([500] * 120)
torch.cuda.reset_peak_memory_stats()
before = torch.cuda.memory_allocated()
annotate(table)
needed = torch.cuda.max_memory_allocated() - before
torch.cuda.empty_cache()
ballast = torch.empty(torch.cuda.mem_get_info()[0] - int(0.7 * needed), dtype=torch.uint8, device="cuda")
budget = annotate._budget
errors = [error for error in annotate(table)["error"].to_pylist() if error is not None]
assert not errors, errors[0]
assert annotate._budget < budget
print("told")
"""


def measure(section: Section) -> None:
    _drill(section, "no device", NO_DEVICE, {"CUDA_VISIBLE_DEVICES": ""})
    _drill(section, "out of memory", f"DEVICE = {section.device.type!r}\n{OUT_OF_MEMORY}", {})
    if section.smoke:
        return
    _drill(section, "poisoned context", POISONED, {})
    with tempfile.TemporaryDirectory() as empty:
        nothing = {"PATH": empty, "CC": "", "TRITON_CACHE_DIR": empty}
        _drill(section, "no C compiler", NO_COMPILER, nothing)
    if section.can_import("pydantic"):
        _drill(section, "memory for half a pack", BALLAST, {})


def _drill(section: Section, name: str, program: str, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=max(5.0, section.left_s),
        )
        told = done.returncode == 0 and "told" in done.stdout
        section.add(drill=name, passed=told, said=None if told else done.stderr[-600:])
    except subprocess.TimeoutExpired:
        section.add(drill=name, passed=False, said="no end in time")


if __name__ == "__main__":
    run("drills", measure)
