"""The README of a checkpoint: its YAML as the hub reads it, its numbers, and no credentials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from huggingface_hub import ModelCard

from pipeline.storage import Storage, StorageOptions
from pipeline.training.report.card import Card, Data, Parent, installed_versions, render, write_card

STORAGE = Storage(StorageOptions())
SECRET = 'EXAMPLE\'KEY: "that" # is\\secret'
CARD = Card(
    title="digits: a | b",
    task="transcribe",
    parent=Parent("facebook/w2v-bert-2.0", "sha256:aa", on_hub=True),
    data=[
        Data("training", "s3://corpus/train/", "sha256:bb", 12408, 21.4321),
        Data("validation", "s3://corpus/dev/", "sha256:cc", 830, 1.4),
    ],
    settings={"learning_rate": 5e-5, "task": ["transcribe"], "note": "a | b\nc"},
    command="python jobs/finetune.py --task transcribe --train s3://corpus/train/",
    metrics={
        "transcribe/wer": 0.0781,
        "transcribe/loss": 0.25,
        "transcribe/blank_only": 0.0,
        "embed/eer": 0.1,
    },
    backbone="dd" * 32,
    date="2026-11-28",
    versions={"torch": "2.11.0"},
)


def test_the_hub_reads_it() -> None:
    data = ModelCard(render(CARD, STORAGE)).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "automatic-speech-recognition"
    assert data.base_model == "facebook/w2v-bert-2.0"
    assert data.tags == ["wav2vec2-bert", "speech", "ctc"]
    assert data.model_name == "digits: a | b"
    results = {result.metric_type: result for result in data.eval_results}
    assert results.keys() == {"wer", "loss"}
    assert results["wer"].metric_value == 0.0781
    assert (results["wer"].dataset_name, results["wer"].task_type) == (
        "s3://corpus/dev/",
        "automatic-speech-recognition",
    )


def test_what_a_person_reads() -> None:
    text = ModelCard(render(CARD, STORAGE)).text
    for line in (
        "# digits: a | b",
        "| word error rate | 7.81% |",
        "| loss | 0.25 |",
        "| parent | facebook/w2v-bert-2.0 | sha256:aa |",
        "| training data | s3://corpus/train/: 12,408 clips, 21.43 h | sha256:bb |",
        "| learning_rate | 5e-05 |",
        "| note | a \\| b c |",
        "python jobs/finetune.py --task transcribe --train s3://corpus/train/",
        "2026-11-28; torch 2.11.0.",
    ):
        assert line in text.splitlines(), line
    assert "dd" * 32 in text
    assert "eer" not in text  # another task's


@pytest.mark.parametrize("task", ["transcribe", "classify", "diarize", "embed", "masked-prediction"])
def test_each_task(task: str) -> None:
    card = ModelCard(render(replace(CARD, task=task, metrics={f"{task}/loss": 1.0}), STORAGE))
    (line,) = (line for line in card.text.splitlines() if line.startswith("from transformers"))
    assert hasattr(transformers, line.split()[-1])
    assert card.data.eval_results[0].metric_value == 1.0


def test_from_random_weights_and_without_validation() -> None:
    card = ModelCard(render(replace(CARD, parent=None, metrics={}, data=[]), STORAGE))
    assert card.data.base_model is None
    assert card.data.eval_results is None
    assert "| parent | none: random weights |  |" in card.text
    assert "## Validation" not in card.text


def test_a_parent_of_this_machine_is_none_of_the_hub() -> None:
    card = ModelCard(render(replace(CARD, parent=Parent("runs/first", "sha256:aa")), STORAGE))
    assert card.data.base_model is None
    assert "| parent | runs/first | sha256:aa |" in card.text


def test_versions() -> None:
    assert installed_versions()["torch"].startswith("2.")
    assert "unknown" not in installed_versions().values()


def test_no_credentials(tmp_path: Path) -> None:
    storage = Storage(StorageOptions(key="ID", secret=SECRET))  # type: ignore[arg-type]
    card = replace(
        CARD,
        title=SECRET,
        parent=Parent(f"s3://user:{SECRET}@bucket/model", "sha256:aa", on_hub=True),
        data=[Data("validation", SECRET, SECRET, 1, 1.0)],
        settings={"nested": {"list": [SECRET]}},
        command=f"AWS_SECRET_ACCESS_KEY='{SECRET}' python jobs/finetune.py",
    )
    write_card(card, str(tmp_path), storage)
    text = (tmp_path / "README.md").read_text()
    assert "EXAMPLE" not in text
    assert "AWS_SECRET_ACCESS_KEY='***' python jobs/finetune.py" in text
    assert ModelCard(text).data.model_name == "***"
