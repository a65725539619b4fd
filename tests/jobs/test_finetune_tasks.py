"""What jobs/finetune.py makes goes on: four heads into one pass of annotate, pretraining into fine-tuning."""

from __future__ import annotations

import json
import re
from pathlib import Path

import duckdb
import pytest
import transformers

from jobs.annotate import main as annotate
from jobs.finetune import main as finetune
from tests.spoken import RATE, utterances, write

TASKS = {
    "transcribe": transformers.Wav2Vec2BertForCTC,
    "classify": transformers.Wav2Vec2BertForSequenceClassification,
    "diarize": transformers.Wav2Vec2BertForAudioFrameClassification,
    "embed": transformers.Wav2Vec2BertForXVector,
}
MODEL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "output_hidden_size": 16,
    "conv_depthwise_kernel_size": 5,
    "classifier_proj_size": 8,
    "tdnn_dim": [8, 8, 8],
    "tdnn_kernel": [3, 2, 1],
    "tdnn_dilation": [1, 1, 1],
    "xvector_output_dim": 8,
}
CLIPS = 48
pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus to learn from, one to validate on, who speaks when, and a small model."""
    home = tmp_path_factory.mktemp("finetune")
    lines = []
    for folder, seed, count in (("train", 0, CLIPS), ("valid", 1, 9)):
        spoken = utterances(count, seed, letters=(4, 7))
        write(home / folder, spoken)
        if folder == "train":  # clips to validate on have ids of them
            for number, one in enumerate(spoken, 1):
                lines.append(rttm(f"labels.tsv#{number}", one.voice, len(one.waveform) / RATE))
    (home / "speakers.rttm").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (home / "small.json").write_text(json.dumps(MODEL), encoding="utf-8")
    return home


def rttm(name: str, voice: str, seconds: float) -> str:
    return f"SPEAKER {name} 1 0.04 {seconds - 0.08:.2f} <NA> <NA> {voice} <NA> <NA>"


def run(home: Path, output: str, *flags: str) -> Path:
    places = ["--train", home / "train", "--output", home / output, "--features", home / "features"]
    assert finetune([*map(str, places), "--token-budget", "600", *flags]) == 0
    return home / output


def test_four_heads_in_one_run_are_one_pass(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--valid", str(home / "valid"), "--rttm", str(home / "speakers.rttm"), "--max-steps", "8"]
    output = run(home, "four", "--task", ",".join(TASKS), "--model-config", str(home / "small.json"), *flags)
    printed = capsys.readouterr().out
    assert re.search(r"^transcribe +WER .+%", printed, re.MULTILINE)
    assert re.search(r"^embed +EER .+%", printed, re.MULTILINE)
    assert re.search(r"^diarize +DER .+%", printed, re.MULTILINE)
    for task, kind in TASKS.items():
        _, info = kind.from_pretrained(output / task, output_loading_info=True)
        assert not info["missing_keys"] | info["unexpected_keys"], task
    models = [flag for task in TASKS for flag in (f"--{task}", str(output / task))]
    assert annotate(["--input", str(home / "valid"), "--output", str(home / "table"), *models]) == 0
    (told,) = re.findall(r"^encoder +(.+)", capsys.readouterr().out, re.MULTILINE)
    assert f"(one for {', '.join(TASKS)})" in told
    found = duckdb.sql(f"SELECT label, embedding, text FROM '{home}/table/*.parquet' WHERE error IS NULL")
    rows = found.fetchall()
    assert len(rows) == 9
    assert all(label in "abcdefgh" and len(embedding) == 8 for label, embedding, _ in rows)


def test_pretraining_goes_before_fine_tuning(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--objective", "masked-prediction", "--codebook-size", "32", "--max-steps", "4"]
    flags += ["--valid", str(home / "valid"), "--model-config", str(home / "small.json")]
    adapted = run(home, "adapted", *flags)
    told = r"^masked-prediction +accuracy .+%, by always saying the most frequent code .+%, loss"
    assert re.search(told, capsys.readouterr().out, re.MULTILINE)
    output = run(
        home,
        "ours",
        "--task",
        "transcribe",
        "--model",
        str(adapted / "masked-prediction"),
        "--max-steps",
        "2",
    )
    config = json.loads((output / "transcribe" / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["Wav2Vec2BertForCTC"]
    (parent,) = re.findall(r"\| parent \| (\S+)", (output / "transcribe" / "README.md").read_text("utf-8"))
    assert parent == str(adapted / "masked-prediction")
    _, info = transformers.Wav2Vec2BertForCTC.from_pretrained(output / "transcribe", output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
