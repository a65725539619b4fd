"""One encoder, several heads: what a batch teaches which of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import JobError
from pipeline.training.model.losses import TaskLoss
from tests.pipeline.training.model.tiny import HEADS, LENGTHS, STILL, batch, targets, tiny
from w2vbert.model import Wav2Vec2BertModel
from w2vbert.pretrained.digest import backbone_digest

LEARNERS = {
    (adapter, weighted): tiny(
        [task for task in HEADS if not adapter or task in ("transcribe", "embed")],
        add_adapter=adapter,
        use_weighted_layer_sum=weighted,
        mask_time_prob=0.3,
    )
    for adapter in (False, True)
    for weighted in (False, True)
}


def total(losses: dict[str, TaskLoss]) -> Tensor:
    return torch.stack([loss.total for loss in losses.values() if loss.count]).sum()


@given(
    which=st.sampled_from(sorted(LEARNERS)),
    present=st.sets(st.sampled_from(sorted(HEADS))),
    rows=st.sets(st.integers(0, 2), min_size=1),
    skipped=st.sets(st.integers(0, 2)),
    training=st.booleans(),
)
@settings(max_examples=60)
def test_every_parameter_has_a_gradient(
    which: tuple[bool, bool], present: set[str], rows: set[int], skipped: set[int], training: bool
) -> None:
    """Whichever targets a batch lacks, and whichever layers are skipped."""
    learner = LEARNERS[which].train(training)
    learner.zero_grad()
    lengths = (43, 35, 60)
    given = {
        task: [target if task in present and row in rows else None for row, target in enumerate(of_all)]
        for task, of_all in targets(lengths).items()
    }
    losses = learner(batch(lengths, given), skipped_layers=skipped)
    for task, loss in losses.items():
        there = [target is not None for target in given[task]]
        assert (~loss.clips.isnan()).tolist() == there
        assert (loss.count > 0) == any(there)
    counted = [loss.total for loss in losses.values() if loss.count]
    torch.stack(counted or [loss.total for loss in losses.values()]).sum().backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for number in skipped:
        assert not any(p.grad.any() for p in learner.encoder.encoder.layers[number].parameters())


def test_frozen_parameters_stay_without() -> None:
    learner = tiny(**STILL)
    learner.encoder.requires_grad_(False)
    given = {**targets(LENGTHS), "embed": [None] * 3}
    total(learner(batch(given=given), skipped_layers={1})).backward()
    assert all(parameter.grad is None for parameter in learner.encoder.parameters())
    assert all(parameter.grad is not None for parameter in learner.results["embed"].tdnn.parameters())


def test_an_absent_task_changes_nothing_for_the_others() -> None:
    learner, everything = tiny(**STILL), batch()
    some = batch(given={task: everything.targets[task] for task in ("classify", "embed")})
    before, after = learner(everything), learner(some)
    for task in ("classify", "embed"):
        assert torch.equal(after[task].clips, before[task].clips)
    assert after["transcribe"].clips.isnan().all()
    assert (after["transcribe"].count, after["transcribe"].total.item()) == (0, 0.0)


def test_masks_and_layers_are_functions_of_what_is_given() -> None:
    learner = tiny(["classify"], **{**STILL, "layerdrop": 0.5, "mask_time_prob": 0.4})
    same = targets(LENGTHS)

    def loss(seed: int, **options: Any) -> float:
        made = batch(given=same)
        return learner(type(made)(**{**vars(made), "seed": seed}), **options)["classify"].total.item()

    torch.manual_seed(0)
    first = loss(1, skipped_layers={1})
    assert loss(1, skipped_layers={1}) == first, "nothing is drawn from the default generator"
    assert loss(2, skipped_layers={1}) != first
    assert loss(1, skipped_layers={2}) != first
    assert len({loss(1) for _ in range(20)}) > 1, "layers are drawn where none are given"
    learner.eval()
    assert loss(1) == loss(2)


def test_masks_that_are_given() -> None:
    learner = tiny(["classify"], **{**STILL, "mask_time_prob": 0.4})
    made = batch()
    nothing = learner(made, mask_time_indices=torch.zeros(3, max(LENGTHS), dtype=torch.bool))
    assert torch.equal(nothing["classify"].clips, learner.eval()(made)["classify"].clips)


def test_weights_have_one_name_each_and_come_back() -> None:
    learner, other = tiny(seed=1), tiny(seed=2)
    weights = dict(learner.named_parameters())
    assert "encoder.encoder.layers.0.ffn1.output_dense.weight" in weights
    assert "tasks.transcribe.lm_head.weight" in weights
    made = batch()
    expected = learner.eval()(made)
    assert not torch.equal(other.eval()(made)["embed"].clips, expected["embed"].clips)
    other.load_weights(weights)
    found = other(made)
    for task in HEADS:
        assert torch.equal(found[task].clips, expected[task].clips)


@pytest.mark.parametrize("change", ["missing", "strange", "shape"])
def test_weights_of_another_model(change: str) -> None:
    learner = tiny(["classify"])
    weights = dict(learner.named_parameters())
    name = "tasks.classify.classifier.bias"
    tensor = weights.pop(name)
    if change == "strange":
        weights |= {name: tensor, "tasks.embed.projector.bias": tensor}
    elif change == "shape":
        weights[name] = tensor[:2]
    with pytest.raises(JobError, match="of another model"):
        learner.load_weights(weights)


def test_what_is_published(tmp_path: Path) -> None:
    """One checkpoint for each task, with one digest of the encoder; transformers computes what we do."""
    learner, made = tiny(seed=3).eval(), batch((40,))
    digests = set()
    for task, model in learner.results.items():
        learner.results[task].save_pretrained(tmp_path / task)
        ours = type(model).from_pretrained(tmp_path / task, complete=True)
        digests |= {backbone_digest(ours), backbone_digest(model)}
        peer_class = getattr(transformers, type(model).__name__)
        peer, info = peer_class.from_pretrained(tmp_path / task, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        features = made.features.pad()
        with torch.no_grad():
            theirs, mine, before = (m(features).logits for m in (peer.eval(), ours, model))
        assert torch.equal(mine, before)
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    assert len(digests) == 1
    bare = Wav2Vec2BertModel.from_pretrained(tmp_path / "embed")
    assert digests == {backbone_digest(bare)}


def test_gradients_of_shared_steps_add_up() -> None:
    """Two packs, one after the other, give the gradients of their clips in one pack."""
    made = batch()
    clips = made.features.split()
    learner = tiny(**STILL)
    gradients = []
    for parts in ([[0, 1, 2]], [[0], [1, 2]]):
        learner.zero_grad()
        counts = dict.fromkeys(HEADS, 0.0)
        totals = dict.fromkeys(HEADS, torch.zeros(()))
        for rows in parts:
            given = {task: [made.targets[task][row] for row in rows] for task in HEADS}
            one = batch(tuple(len(clips[row]) for row in rows), given)
            one.features.frames.copy_(torch.cat([clips[row] for row in rows]))
            for task, loss in learner(one).items():
                counts[task] += loss.count
                totals[task] = totals[task] + loss.total
        torch.stack([totals[task] / counts[task] for task in HEADS]).sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
        )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_bfloat16_by_autocast() -> None:
    """Losses and their sums stay float32, near those of float32; gradients are of the weights' type."""
    learner, made = tiny(**STILL), batch()
    exact = learner(made, margin=0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = learner(made, margin=0.0)
    for task, loss in rounded.items():
        assert loss.total.dtype == loss.clips.dtype == torch.float32
        assert loss.total.item() == pytest.approx(exact[task].total.item(), rel=0.05)
    total(rounded).backward()
    assert {p.grad.dtype for p in learner.parameters() if p.grad is not None} == {torch.float32}
