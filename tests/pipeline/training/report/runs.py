"""A small finished run, as its page is told of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.metrics.rttm import Segment
from pipeline.training.report.losses import HardClip, HardClips
from pipeline.training.report.page import Page, UnusableClip
from pipeline.training.report.page.pictures import MaskedExample
from pipeline.training.report.scores import Scored

STEPS = 1000
UNIT = np.eye(4, dtype=np.float32)


def events() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, STEPS + 1):
        scalars = {
            "transcribe/loss": 1000.0 / step,
            "transcribe/blank": 0.75,
            "transcribe/zeroed": 0.0,
            "learning_rate": 1e-3 * min(step / 100, 1),
            "gradient_norm": 2.0,
            "frames_per_s": 4000.0,
            "waited_s": 0.01,
            "frames": 4000.0,
            "seconds": 1.0,
        }
        found.append({"kind": "step", "step": step, "epoch": step // 200, **scalars})
        if step % 250 == 0:
            wer = {250: 0.9, 500: 0.125, 750: 0.15, 1000: 0.2}[step]
            metrics = {"transcribe/loss": 1.5, "transcribe/wer": wer, "transcribe/failed": 0.0}
            found.append({"kind": "valid", "step": step, **metrics, "classify/accuracy": step / 1000})
    found.append({"kind": "skipped", "step": 7, "reason": "the loss is not finite", "clip_ids": ["s#bad"]})
    return found


def clips() -> dict[str, list[Scored]]:
    turns = [Segment("speaker_0", 0.0, 2.0), Segment("speaker_1", 2.0, 4.0)]
    said = [
        {"speaker": "speaker_1", "start_s": 0.0, "end_s": 2.0},
        {"speaker": "speaker_0", "start_s": 3.0, "end_s": 4.0},
    ]
    return {
        "transcribe": [
            Scored("v#1", "one two three", {"text": "one too three four"}, 2.0, 0.5),
            Scored("v#2", "five & <six>", {"text": "five"}, 2.0, 1.5),
        ],
        "classify": [
            Scored("v#1", "cat", {"label": "dog"}, 2.0),
            Scored("v#2", "dog", {"label": "dog"}, 2.0),
        ],
        "diarize": [Scored("v#3", turns, {"segments": said}, 4.0, 0.25)],
        "embed": [Scored(f"v#{n}", n % 2, {"embedding": UNIT[n % 2]}, 2.0) for n in range(4)],
    }


def page(**other: Any) -> Page:
    mask = np.zeros(50, bool)
    mask[10:20] = mask[30:35] = True
    features = np.random.default_rng(0).standard_normal((50, 160)).astype(np.float32)
    hard = HardClip("t#17", "transcribe", 4.0, 3.5, 5)
    told: dict[str, Any] = {
        "title": "digits <small>",
        "facts": [
            ("model", "facebook/w2v-bert-2.0"),
            ("command", "python jobs/finetune.py --task transcribe"),
        ],
        "events": events(),
        "max_steps": 2000,
        "frame_s": 0.02,
        "clips": clips(),
        "hard": HardClips([hard], [hard]),
        "texts": {"t#17": "the text of <clip 17>"},
        "unusable": [UnusableClip(f"t#{n}", "label_too_long", f"{n} tokens") for n in range(25)],
        "masked": MaskedExample("t#5", features, mask),
    }
    return Page(**told | other)
