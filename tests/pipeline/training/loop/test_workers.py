"""What a step computes does not depend on how many workers share it, nor on how."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2BertForCTC as Peer

from pipeline.training.batches.batch import Batch
from pipeline.training.loop.worker import Training, reader_of
from pipeline.training.publish import publish
from pipeline.training.state.checkpoints import Checkpoints
from tests.pipeline.training.loop.runs import (
    clips_of,
    distance,
    events_of,
    index_of,
    metrics_of,
    order_of,
    poisoned,
    run,
    run_on,
    training_of,
    weights_of,
)
from w2vbert import Wav2Vec2BertForCTC

pytestmark = pytest.mark.slow
Runs = dict[str, Training]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The same run of one worker and of two; 20 steps over several epochs, each of which ends with a step of
    one pack: for that the second worker has none."""
    folder = tmp_path_factory.mktemp("workers")
    alone = training_of(folder, ema_decay=0.9, freeze_encoder_steps=2, max_skipped=99)
    packs = len(order_of(alone))
    assert packs % 2 == 1
    assert packs < 20
    runs = {
        name: replace(alone, output=str(folder / name), fsdp=name == "fsdp2")
        for name in ("alone", "replicas", "fsdp2")
    }
    bad = poisoned(alone, *(f"t{number:02}" for number in range(0, 12, 2)))
    runs |= {
        name: replace(bad, output=str(folder / name), fsdp=name.endswith("fsdp2"))
        for name in ("bad alone", "bad replicas", "bad fsdp2")
    }
    few = training_of(folder / "few", (60,), max_steps=3)
    runs |= {
        name: replace(few, output=str(folder / name), fsdp=name.endswith("fsdp2"))
        for name in ("few alone", "few replicas", "few fsdp2")
    }
    for name, training in runs.items():
        if name.endswith("alone"):
            run(training)
    run_on(2, [training for name, training in runs.items() if not name.endswith("alone")], folder)
    return runs


@pytest.mark.parametrize("name", ["replicas", "fsdp2"])
def test_two_workers_are_one_with_twice_the_packs(runs: Runs, name: str) -> None:
    found, expected = runs[name], runs["alone"]
    assert clips_of(found) == clips_of(expected)
    assert clips_of(found, "valid") == clips_of(expected, "valid")
    assert distance(weights_of(found), weights_of(expected)) < 1e-5


@pytest.mark.parametrize("name", ["replicas", "fsdp2"])
def test_they_measure_the_same(runs: Runs, name: str) -> None:
    found, expected = metrics_of(runs[name]), metrics_of(runs["alone"])
    assert [measured["step"] for measured in expected] == [7, 14, 20]
    for some, others in zip(found, expected, strict=True):
        assert some == pytest.approx(others, rel=1e-5)


@pytest.mark.parametrize("name", ["bad replicas", "bad fsdp2"])
def test_what_comes_to_nothing_does_so_for_any_number_of_workers(runs: Runs, name: str) -> None:
    """A pack whose loss is not finite is left out, and a step of such packs changes nothing."""
    found, expected = runs[name], runs["bad alone"]
    assert len(clips_of(expected)) < 20  # some steps have nothing else
    assert clips_of(found) == clips_of(expected)
    told = [
        [(event["step"], sorted(event["clip_ids"]), event["reason"]) for event in events_of(one, "skipped")]
        for one in (found, expected)
    ]
    assert told[0] == told[1]
    assert distance(weights_of(found), weights_of(expected)) < 1e-5


@pytest.mark.parametrize("name", ["few replicas", "few fsdp2"])
def test_a_worker_without_clips_waits_for_the_other(runs: Runs, name: str) -> None:
    found, expected = runs[name], runs["few alone"]
    assert clips_of(found) == clips_of(expected) == [(1, ["t00"]), (2, ["t00"]), (3, ["t00"])]
    assert distance(weights_of(found), weights_of(expected)) < 1e-5


def test_the_peer_reads_what_shares_of_weights_came_to(runs: Runs, tmp_path: Path) -> None:
    training = runs["fsdp2"]
    learner, _ = training.model.build()
    weights = Checkpoints(training.output, training.storage).weights(20)
    publish(learner, weights, training.settings, str(tmp_path), training.storage)
    ours = Wav2Vec2BertForCTC.from_pretrained(tmp_path / "transcribe").eval()
    peer = Peer.from_pretrained(tmp_path / "transcribe").eval()
    for clip in _clips(training):
        with torch.no_grad():
            found, expected = (model(clip[None]).logits[0] for model in (peer, ours))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.argmax(-1).tolist() == expected.argmax(-1).tolist()


def _clips(training: Training) -> list[torch.Tensor]:
    index = index_of(training)
    batch: Batch = reader_of(training, index, augmented=False).batch(order_of(training).packs(0)[0])
    return list(batch.features.split())
