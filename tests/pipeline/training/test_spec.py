"""What a fine-tuning job is told."""

from pathlib import Path

import pytest

from jobs.cli import read_spec
from pipeline.errors import JobError
from pipeline.training.model.objectives import OBJECTIVES
from pipeline.training.spec import FinetuneSpec
from pipeline.training.spec.learning import LEARNABLE

NEEDED = ["--train", "corpus", "--output", "run", "--model", "base"]


def spec_of(*arguments: str) -> FinetuneSpec:
    return read_spec(FinetuneSpec, [*NEEDED, *arguments], program="jobs/finetune.py", environment={})


def test_what_can_be_learned_is_what_has_an_objective() -> None:
    assert list(OBJECTIVES) == list(LEARNABLE)


def test_flags() -> None:
    spec = spec_of(
        *("--task", "transcribe,embed", "--task-weights", "embed=0.3", "--set", "add_adapter=true"),
        *("--set", "mask_time_prob=0.1", "--speeds", "0.9,1", "--adam-betas", "0.9,0.95"),
    )
    assert spec.tasks == ["transcribe", "embed"]
    assert spec.model.task_weights == {"embed": 0.3}
    assert spec.model.overrides == {"add_adapter": True, "mask_time_prob": 0.1}
    assert spec.augmentation.speeds == [0.9, 1.0]
    assert spec.optimiser.betas == (0.9, 0.95)
    assert spec.public()["train"] == ["corpus"]


def test_what_is_best_is_named_with_or_without_its_task() -> None:
    both = ("--task", "transcribe,embed", "--metric")
    assert spec_of(*both, "cer").metric == "transcribe/cer"
    assert spec_of(*both, "embed/eer").metric == "embed/eer"
    assert spec_of(*both[:2]).metric is None


def test_the_file_of_settings_is_not_that_of_the_model(tmp_path: Path) -> None:
    settings = tmp_path / "finetune.yaml"
    settings.write_text("task: transcribe\ntrain: corpus\noutput: run\nmodel_config: small.json\n")
    spec = read_spec(FinetuneSpec, ["--config", str(settings)], program="jobs/finetune.py", environment={})
    assert spec.model.architecture == "small.json"
    assert spec.public()["model_config"] == "small.json"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --task"),
        (["--task", "translate"], "'translate' cannot be learned; there are transcribe"),
        (["--task", "transcribe,transcribe"], "twice"),
        (["--task", "transcribe", "--model-config", "small.json"], "give --model"),
        (["--task", "diarize"], "--rttm"),
        (["--task", "transcribe,embed", "--concat-prob", "0.1"], "transcribe alone"),
        (["--task", "transcribe", "--task-weights", "embed=1"], "embed is not among the tasks"),
        (["--task", "transcribe", "--max-steps", "9", "--num-epochs", "1"], "give one"),
        (["--task", "transcribe", "--warmup-ratio", "0.7"], "more than all steps"),
        (["--task", "transcribe", "--objective", "masked-prediction"], "masked prediction needs no labels"),
        (["--task", "transcribe", "--num-workers", "4:2"], "MIN:MAX"),
        (["--task", "transcribe", "--noise-snr-db", "30:5"], "MIN:MAX"),
        (["--task", "transcribe", "--set", "layerdrop"], "no pair"),
        (["--task", "transcribe", "--metric", "were"], "'transcribe/were' is not measured; there are"),
        (["--task", "transcribe", "--metric", "embed/eer"], "there are transcribe/wer, transcribe/cer"),
        (["--objective", "masked-prediction", "--metric", "wer"], "masked-prediction/accuracy"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: list[str], said: str) -> None:
    with pytest.raises(JobError, match=said):
        spec_of(*arguments)


def test_only_what_decides_a_step_is_in_the_digest() -> None:
    plain = spec_of("--task", "transcribe")
    elsewhere = spec_of(
        "--task", "transcribe", "--num-workers", "4", "--keep-last", "9", "--max-failures", "0"
    )
    assert plain.digest == elsewhere.digest
    assert plain.digest != spec_of("--task", "transcribe", "--seed", "1").digest
    assert plain.digest != spec_of("--task", "transcribe", "--set", "layerdrop=0").digest
