"""Jobs that cannot run say why in a line, and jobs with too many error rows say so at the end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.transcribe import main
from tests.jobs.tables import log_of

pytestmark = pytest.mark.usefixtures("local_ray")
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo" / "checkpoint"
LOOSE = ROOT / "demo" / "corpus" / "loose"


def refused(said: str, output: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> None:
    """The job ends with status 2 and one message that says so much, and has touched nothing."""
    status = main(["--output", str(output), *map(str, arguments)])
    told(said, output, status, capsys.readouterr().err)


def told(said: str, output: Path, status: int, error: str) -> None:
    assert status == 2, error
    lines = [line for line in error.splitlines() if line.startswith("jobs/transcribe.py: ")]
    assert len(lines) == 1, error
    assert said in lines[0]
    assert "Traceback" not in error
    assert not output.exists()
    assert not log_of(output).exists()


def test_no_such_input(tmp_path: Path) -> None:
    """As a command; the other refusals in this process."""
    output = tmp_path / "out"
    command = [
        sys.executable,
        "jobs/transcribe.py",
        "--output",
        output,
        "--input",
        "/nowhere",
        "--model",
        MODEL,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stdout
    told("/nowhere: does not exist", output, done.returncode, done.stderr)


def test_no_shard_in_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("no audio")
    refused("no audio shard there", tmp_path / "out", capsys, "--input", tmp_path / "in", "--model", MODEL)


def test_incomplete_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    (model / "model.safetensors").unlink()
    refused("no weights there", tmp_path / "out", capsys, "--input", LOOSE, "--model", model)


def test_damaged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = shutil.copytree(MODEL, tmp_path / "model")
    (model / "model.safetensors").write_bytes(b"cut short")
    refused(f"--model {model}: cannot be read", tmp_path / "out", capsys, "--input", LOOSE, "--model", model)


def test_more_gpus_than_the_cluster_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input", LOOSE, "--model", MODEL, "--num-gpus-per-actor", 1000]
    refused("asks for 1000 GPUs", tmp_path / "out", capsys, *arguments)


def test_too_many_error_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    shutil.copy(LOOSE / "telephone.wav", corpus)
    (corpus / "broken.wav").write_bytes(b"no audio at all")
    told = ["--input", str(corpus), "--model", str(MODEL), "--max-error-rate"]
    assert main([*told, "0.4", "--output", str(tmp_path / "a")]) == 3
    assert "50.0% of the clips are error rows, more than --max-error-rate 0.4" in capsys.readouterr().err
    # The bound itself is allowed.
    assert main([*told, "0.5", "--output", str(tmp_path / "b")]) == 0
