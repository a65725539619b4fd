"""A handful of clips can be learned by heart; a learner that cannot do that learns nothing."""

from __future__ import annotations

import torch

from tests.pipeline.training.model.tiny import batch, targets, tiny

LENGTHS = (24, 31, 28, 36)


def test_four_clips_by_heart_for_all_tasks_at_once() -> None:
    learner = tiny(hidden_size=32, mask_time_prob=0.0, conformer_conv_dropout=0.0, layerdrop=0.0)
    made = batch(LENGTHS, targets(LENGTHS, seed=1))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=5e-3)
    seen: list[dict[str, float]] = []
    for _ in range(90):
        optimiser.zero_grad()
        losses = learner(made, margin=0.2)
        torch.stack([loss.total / loss.count for loss in losses.values()]).sum().backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimiser.step()
        seen.append({task: (loss.total / loss.count).item() for task, loss in losses.items()})
    assert seen[0]["transcribe"] > 2
    assert seen[-1]["transcribe"] < 0.1
    assert seen[-1]["diarize"] < 0.4 * seen[0]["diarize"]
    assert seen[-1]["embed"] < 0.1
    assert losses["classify"].facts["correct"] == 4

    learner.eval()
    with torch.no_grad():
        logits = learner.results["transcribe"].frame_logits(learner.encoder.encode(made.features))
    for clip, text in zip(logits.split(), made.targets["transcribe"], strict=True):
        path = clip.argmax(dim=1).unique_consecutive()
        assert text is not None
        assert path[path != 0].tolist() == text.tolist()
