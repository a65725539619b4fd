"""What masked prediction is worth: learn words from a tenth of the labels, after it and without it.

    python -m bench.masked_prediction RECORDINGS --output bench/results/masked-prediction.md

RECORDINGS holds `digits/` and `librispeech/`, each with a `labels.tsv`. All of both is heard without labels,
but for one speaker of the digits, who is for the measurement alone. Then every tenth recording of the others
teaches the words: the same steps from the pretrained encoder and from random weights, for three seeds. All
runs are `jobs/finetune.py`.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bench.machine import describe

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
HELD_OUT = "theo"
SHARE = 10  # one labelled recording of so many is learned from
PRETRAINING_STEPS, STEPS, EVERY = 700, 500, 250
BOTH = ("--num-workers=1", "--threads-per-worker=1", "--warmup-ratio=0.1", "--max-unusable=1")
PRETRAINING = (
    *("--objective=masked-prediction", f"--model-config={ROOT / 'demo/recipe/model.json'}"),
    *("--mask-prob=0.5", "--mask-length=6", "--codebook-size=256", "--num-codebooks=4"),
    *("--learning-rate=0.002", "--token-budget=3072", f"--max-steps={PRETRAINING_STEPS}"),
)
WORDS = (
    *("--task=transcribe", "--min-char-count=1", "--token-budget=1024", "--lr-scheduler=cosine"),
    *("--final-lr-scale=0.01", f"--max-steps={STEPS}", f"--eval-steps={EVERY}", "--metric=loss"),
)
PRETRAINED = ("--learning-rate=0.001", "--head-learning-rate=0.003")
RANDOM = ("--learning-rate=0.002",)


@dataclass(frozen=True)
class Outcome:
    """Of one seed: masked accuracy and that of the most frequent code; word error rates at the end."""

    accuracy: float
    most_frequent: float
    pretrained: float
    random: float


def write_lists(recordings: Path, folder: Path) -> None:
    """`unlabelled.tsv`, `tenth.tsv` and `held_out.tsv`."""
    rows: dict[str, list[dict[str, str]]] = {"unlabelled": [], "tenth": [], "held_out": []}
    for name in ("digits", "librispeech"):
        with (recordings / name / "labels.tsv").open(newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t")):
                path = str((recordings / name / row["path"]).resolve())
                found = {"path": path, "speaker": row["speaker"], "text": row["text"]}
                if row["speaker"] == HELD_OUT:
                    rows["held_out"].append(found)
                    continue
                rows["unlabelled"].append(found | {"text": ""})
                if name == "digits" and number % SHARE == 0:
                    rows["tenth"].append(found)
    for name, listed in rows.items():
        with (folder / f"{name}.tsv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("path", "speaker", "text"), delimiter="\t")
            writer.writeheader()
            writer.writerows(listed)


def finetune(output: Path, features: Path, *arguments: str) -> dict[str, Any]:
    """Runs the job; what the last validation measured, by task and metric."""
    places = (f"--output={output}", f"--features={features}")
    subprocess.run([sys.executable, str(ROOT / "jobs/finetune.py"), *arguments, *BOTH, *places], check=True)
    events = [json.loads(line) for line in (output / "events.jsonl").read_text().splitlines()]
    measured: dict[str, Any] = [event for event in events if event["kind"] == "valid"][-1]
    return measured


def compare(seed: int, folder: Path) -> Outcome:
    held_out, tenth = f"--valid={folder / 'held_out.tsv'}", f"--train={folder / 'tenth.tsv'}"
    features = folder / "features"
    drawn = f"--seed={seed}"
    pretraining = finetune(
        folder / f"pretrained-{seed}",
        features,
        *(*PRETRAINING, f"--train={folder / 'unlabelled.tsv'}", held_out, drawn),
    )
    encoder = f"--model={folder / f'pretrained-{seed}' / 'masked-prediction'}"
    words = (*WORDS, tenth, held_out, drawn)
    after = finetune(folder / f"after-{seed}", features, *words, *PRETRAINED, encoder)
    model = f"--model-config={ROOT / 'demo/recipe/model.json'}"
    without = finetune(folder / f"without-{seed}", features, *words, *RANDOM, model)
    return Outcome(
        pretraining["masked-prediction/accuracy"],
        pretraining["masked-prediction/most_frequent"],
        after["transcribe/wer"],
        without["transcribe/wer"],
    )


def report(outcomes: Sequence[Outcome]) -> str:
    rows = [
        f"| {seed} | {found.accuracy:.1%} ({found.most_frequent:.1%}) "
        f"| {found.pretrained:.1%} | {found.random:.1%} |"
        for seed, found in zip(SEEDS, outcomes, strict=True)
    ]
    after, without = ([getattr(found, name) for found in outcomes] for name in ("pretrained", "random"))
    return "\n".join(
        [
            "# Masked prediction, then a tenth of the labels",
            "",
            describe(f"{date.today()}"),
            "",
            f"Word error rates of {HELD_OUT}'s digits, whom nothing heard, after {STEPS} steps on a tenth of "
            f"the others' labels: after {PRETRAINING_STEPS} steps of masked prediction on all audio without "
            "labels, and from random weights. Masked accuracy is of the codes of the held-out speaker, in "
            "parentheses that of always saying the most frequent one.",
            "",
            "| seed | masked accuracy | after masked prediction | from random weights |",
            "| --- | --- | --- | --- |",
            *rows,
            f"| median | | **{statistics.median(after):.1%}** | **{statistics.median(without):.1%}** |",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lists(given.recordings, folder)
        given.output.write_text(report([compare(seed, folder) for seed in SEEDS]))


if __name__ == "__main__":
    main()
