"""Events and TensorBoard files: resumed without what came after, wherever they lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event as TensorBoardEvent
from tensorboardX.record_writer import masked_crc32c

from pipeline.storage import Storage, StorageOptions, join
from pipeline.training.report.events import Events, read_events

STORAGE = Storage(StorageOptions())
SECRET = "EXAMPLE+KEY/THAT&IS=secret"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Storage]:
    if request.param == "local":
        return str(tmp_path), STORAGE
    bucket = request.getfixturevalue("bucket")
    return join(bucket, tmp_path.name), Storage(StorageOptions().with_environment())


def tensorboard(output: str, storage: Storage) -> list[list[TensorBoardEvent]]:
    """The events of each file, read as the format says: length, its CRC, data, their CRC."""
    files = []
    for uri in storage.list_files(join(output, "tensorboard")):
        data, events = storage.read_bytes(uri), []
        while data:
            length = int.from_bytes(data[:8], "little")
            assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
            events.append(TensorBoardEvent.FromString(data[12 : 12 + length]))
            data = data[12 + length + 4 :]
        files.append(events)
    return files


def scalars(events: list[TensorBoardEvent]) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


def test_what_was_told_can_be_read(place: tuple[str, Storage]) -> None:
    output, storage = place
    events = Events(output, storage)
    events.step(1, 0, {"transcribe/loss": 2.5, "learning_rate": 1e-5, "gradient_norm": float("nan")})
    events.validated(1, {"transcribe/wer": 0.5})
    events.skipped(2, ["a#1", "b#2"], "the loss is not finite")
    events.close()
    assert read_events(output, storage) == [
        {"kind": "step", "step": 1, "epoch": 0, "transcribe/loss": 2.5, "learning_rate": 1e-5},
        {"kind": "valid", "step": 1, "transcribe/wer": 0.5},
        {"kind": "skipped", "step": 2, "reason": "the loss is not finite", "clip_ids": ["a#1", "b#2"]},
    ]
    (file,) = tensorboard(output, storage)
    assert scalars(file) == {
        ("transcribe/loss", 1): 2.5,
        ("learning_rate", 1): pytest.approx(1e-5),
        ("valid/transcribe/wer", 1): 0.5,
    }


def test_a_resumed_run_has_no_step_twice(place: tuple[str, Storage]) -> None:
    output, storage = place
    first = Events(output, storage)
    for step in range(1, 8):
        first.step(step, 0, {"transcribe/loss": float(step)})
        if step == 4:
            first.sync()
    first.skipped(7, ["x"], "why")
    first.sync()  # of a checkpoint that never became complete
    second = Events(output, storage, step=4)
    for step in range(5, 7):
        second.step(step, 0, {"transcribe/loss": 10.0 + step})
    second.close()
    assert [(event["step"], event["transcribe/loss"]) for event in read_events(output, storage)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
        (5, 15.0),
        (6, 16.0),
    ]
    before, after = tensorboard(output, storage)
    starts = [event for event in after if event.WhichOneof("what") == "session_log"]
    assert [event.step for event in starts] == [5]  # from here on TensorBoard forgets the first file
    assert set(scalars(after)) == {("transcribe/loss", 5), ("transcribe/loss", 6)}
    assert ("transcribe/loss", 7) in scalars(before)


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    Events(str(tmp_path), STORAGE).step(1, 0, {"loss": 1.0})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"kind": "step", "ste')
    assert [event["step"] for event in read_events(str(tmp_path), STORAGE)] == [1]
    Events(str(tmp_path), STORAGE, step=1).step(2, 0, {"loss": 2.0})
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_lines_are_there_at_once(tmp_path: Path) -> None:
    events = Events(str(tmp_path), STORAGE)
    events.step(1, 0, {"loss": 1.0})
    assert len(read_events(str(tmp_path), STORAGE)) == 1


def test_nothing_is_there_before_the_first_start(tmp_path: Path) -> None:
    assert read_events(str(tmp_path), STORAGE) == []


def test_no_credentials(tmp_path: Path) -> None:
    storage = Storage(StorageOptions(key="ID", secret=SECRET))  # type: ignore[arg-type]
    events = Events(str(tmp_path), storage)
    events.skipped(1, ["a"], f"s3 said no to {SECRET}")
    events.close()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert SECRET.encode() not in written
    assert b"s3 said no to ***" in written
