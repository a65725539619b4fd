"""Steps tell how long they waited for data: what the reader says of their own batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pipeline.training.batches.batch import Batch, Pack
from pipeline.training.batches.reader import Reader
from pipeline.training.group import Group
from pipeline.training.loop.worker import train
from tests.pipeline.training.loop.made_up import row_of, training_of
from tests.spoken import utterances


def test_steps_tell_how_long_they_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Reader.stream

    def slow(self: Reader, packs: Iterable[Pack]) -> Iterator[Batch]:
        waited_s = self.waited_s
        for number, batch in enumerate(stream(self, packs)):
            self.waited_s = waited_s = waited_s + 100 * (number + 1)
            yield batch

    monkeypatch.setattr(Reader, "stream", slow)
    rows = [row_of(one, ref_text=one.text, text=one.text) for one in utterances(40)]
    training = training_of(tmp_path, rows, rate=1e-3, max_steps=4)
    outcome = train(training, Group(), lambda kind, news: None)
    lines = map(json.loads, Path(training.output, "events.jsonl").read_text("utf-8").splitlines())
    steps = [event for event in lines if event["kind"] == "step"]
    assert [step["waited_s"] for step in steps] == [100, 200, 300, 400]
    assert all(0 < step["seconds"] - step["waited_s"] < 50 for step in steps)
    assert outcome.progress.seconds == pytest.approx(sum(step["seconds"] for step in steps))
