"""What `--overwrite` deletes, and what it never does."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli.training import main

FILES = ("transcribe/config.json", "classify/config.json", "data/vocab.json", "checkpoints/begun.json")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / "ours" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return tmp_path / "ours"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "{ours}/transcribe"], "--model {ours}/transcribe is part of the run that --overwrite"),
        (["--model", "base", "--vocab", "{ours}/data/vocab.json"], "--vocab {ours}/data/vocab.json is part"),
        (["--model", "{ours}/../nowhere"], "nowhere"),
    ],
)
def test_nothing_is_deleted_for_a_run_that_cannot_begin(
    ours: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = ["--task", "transcribe", "--train", "corpus", "--output", str(ours), "--overwrite"]
    assert main([*told, *(flag.format(ours=ours) for flag in flags)]) == 2
    assert said.format(ours=ours) in capsys.readouterr().err
    assert all((ours / name).exists() for name in FILES)
