"""One encoder that learns four tasks in one run does each as well as an encoder that learns it alone."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.finetune import main as finetune
from tests.spoken import RATE, Utterance, utterances

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("local_ray")]
MODEL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "output_hidden_size": 48,
    "conv_depthwise_kernel_size": 9,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "conformer_conv_dropout": 0.0,
    "activation_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "classifier_proj_size": 16,
    "tdnn_dim": [24, 24, 48],
    "tdnn_kernel": [3, 3, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 16,
}
METRICS = {"transcribe": "WER", "classify": "accuracy", "diarize": "DER", "embed": "EER"}
POINTS = 2.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances of three voices, and talks of two of them one after the other."""
    home = tmp_path_factory.mktemp("four")
    for seed, (folder, count) in enumerate({"train": 400, "valid": 90}.items()):
        spoken = utterances(count, seed, letters=(2, 5))
        talks = [spoken[number : number + 2] for number in range(0, count, 2)]
        write(home / folder, [*([one] for one in spoken), *talks])
    (home / "small.json").write_text(json.dumps(MODEL), encoding="utf-8")
    return home


def write(folder: Path, clips: list[list[Utterance]]) -> None:
    """A clip has the label and the speaker of its voice, if it has but one."""
    folder.mkdir()
    manifest, lines, turns = f"{folder.name}.jsonl", [], []
    for number, said in enumerate(clips, 1):
        path, start = folder / f"{number:04}.wav", 0.0
        soundfile.write(path, np.concatenate([one.waveform for one in said]), RATE)
        line = {"audio_filepath": path.name, "text": " ".join(one.text for one in said)}
        if len(said) == 1:
            line |= {"speaker": said[0].voice, "label": said[0].voice}
        lines.append(json.dumps(line) + "\n")
        for one in said:
            seconds = len(one.waveform) / RATE
            spoken = f"{start:.2f} {seconds:.2f} <NA> <NA> {one.voice} <NA> <NA>"
            turns.append(f"SPEAKER {manifest}#{number} 1 {spoken}\n")
            start += seconds
    (folder / manifest).write_text("".join(lines), encoding="utf-8")
    (folder / "turns.rttm").write_text("".join(turns), encoding="utf-8")


def learned(home: Path, tasks: str, capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    """Percentages of the tasks on clips of which nothing was learned."""
    flags = ["--task", tasks]
    for part in ("train", "valid"):
        flags += [f"--{part}", str(home / part / f"{part}.jsonl")]
    flags += ["--output", str(home / tasks.replace(",", "-")), "--features", str(home / "features")]
    flags += ["--model-config", str(home / "small.json"), "--max-unusable", "0.6", "--min-char-count", "1"]
    flags += ["--learning-rate", "0.003", "--head-learning-rate", "0.003", "--max-steps", "1000"]
    flags += ["--token-budget", "1200", "--margin", "0", "--eval-steps", "1000"]
    if "diarize" in tasks:
        for part in ("train", "valid"):
            flags += ["--rttm", str(home / part / "turns.rttm")]
    assert finetune(flags) == 0
    printed = capsys.readouterr().out
    found = {}
    for task in tasks.split(","):
        (value,) = re.findall(rf"^{task} +.*?{METRICS[task]} ([\d.]+)%", printed, re.MULTILINE)
        found[task] = float(value)
    return found


def test_four_heads_are_as_good_as_each_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    together = learned(home, ",".join(METRICS), capsys)
    alone = {task: learned(home, task, capsys)[task] for task in METRICS}
    with capsys.disabled():
        print(f"\ntogether {together}, alone {alone}")
    for task, value in together.items():
        worse = alone[task] - value if task == "classify" else value - alone[task]
        assert worse <= POINTS, (task, together, alone)
