"""Jobs that cannot run say why in a line, and jobs with too many error rows say so at the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("local_ray")
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo" / "checkpoint"
LOOSE = ROOT / "demo" / "corpus" / "loose"


def transcribe(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/transcribe.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def refused(output: Path, said: str, *arguments: object) -> None:
    finished = transcribe("--output", output, *arguments)
    assert finished.returncode == 2, finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("jobs/transcribe.py: ")]
    assert len(lines) == 1, finished.stderr
    assert said in lines[0]
    assert "Traceback" not in finished.stdout + finished.stderr
    assert not output.exists()


def test_no_such_input(tmp_path: Path) -> None:
    refused(tmp_path / "out", "/nowhere: does not exist", "--input", "/nowhere", "--model", MODEL)


def test_no_shard_in_the_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    refused(tmp_path / "out", "no audio shard there", "--input", tmp_path / "in", "--model", MODEL)


def test_incomplete_model(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    (model / "model.safetensors").unlink()
    refused(tmp_path / "out", "no weights there", "--input", LOOSE, "--model", model)


def test_damaged_model(tmp_path: Path) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"cut short")
    refused(tmp_path / "out", f"--model {model}: cannot be read", "--input", LOOSE, "--model", model)


def test_more_gpus_than_the_cluster_has(tmp_path: Path) -> None:
    arguments = ["--input", LOOSE, "--model", MODEL, "--num-gpus-per-actor", 1000]
    refused(tmp_path / "out", "asks for 1000 GPUs", *arguments)


def test_too_many_error_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.transcribe import main

    corpus = tmp_path / "in"
    corpus.mkdir()
    shutil.copy(LOOSE / "telephone.wav", corpus)
    (corpus / "broken.wav").write_bytes(b"no audio at all")
    told = ["--input", str(corpus), "--model", str(MODEL), "--max-error-rate"]
    assert main([*told, "0.4", "--output", str(tmp_path / "a")]) == 3
    assert "50.0% of the clips are error rows, more than --max-error-rate 0.4" in capsys.readouterr().err
    # The bound itself is allowed.
    assert main([*told, "0.5", "--output", str(tmp_path / "b")]) == 0
