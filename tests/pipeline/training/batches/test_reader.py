"""From packs to batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import JobError
from pipeline.metrics.rttm import Marks, Segment
from pipeline.storage import StorageError
from pipeline.training.batches.augment import Augmentation, Augmenter, Joining
from pipeline.training.batches.batch import Batch, Pack, halves
from pipeline.training.batches.cache import FeatureCache
from pipeline.training.batches.order import Order
from pipeline.training.batches.reader import Reader
from pipeline.training.batches.seeds import pack_seed
from pipeline.training.examples.building import Limits, build_index
from pipeline.training.examples.index import Index
from pipeline.training.examples.labels import Labeller
from pipeline.training.examples.labels.classes import Classify, Embed
from pipeline.training.examples.labels.diarize import Diarize
from pipeline.training.examples.labels.transcribe import Transcribe
from pipeline.training.examples.rows import Rows
from pipeline.training.examples.text import TextSettings
from pipeline.training.examples.vocabulary import Vocabulary
from tests.pipeline.training.tables import FRAME_S, STORAGE, clip, extractor, rows_of, write
from w2vbert import Wav2Vec2BertConfig

CONFIG = Wav2Vec2BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
VOCABULARY = Vocabulary({"|": 0, "a": 1, "b": 2, "[UNK]": 3, "[PAD]": 4})
TRANSCRIBE: dict[str, Labeller] = {
    "transcribe": Transcribe("text", TextSettings(), VOCABULARY.tokenizer(), CONFIG)
}
COLUMNS = ("text", "label", "speaker")


def index_of(tmp_path: Path, clips: Sequence[dict[str, Any]], labellers: dict[str, Labeller]) -> Index:
    held = {f"ref_{name}" if name != "speaker" else name for name in COLUMNS}
    rows = [{**dict.fromkeys(held), **row} for row in clips]
    return build_index(rows_of(tmp_path, rows, *COLUMNS), labellers, Limits()).index


def reader_of(tmp_path: Path, index: Index, augmenter: Augmenter | None = None, seed: int = 0) -> Reader:
    return Reader(index, FeatureCache(STORAGE, tmp_path / "cache"), seed, augmenter)


def pack(*examples: int, epoch: int = 0, number: int = 0) -> Pack:
    return Pack(epoch, number, np.array(examples))


def same(one: Batch, other: Batch) -> bool:
    return (one.pack.epoch, one.pack.number, one.seed, list(one.clip_ids)) == (
        other.pack.epoch,
        other.pack.number,
        other.seed,
        list(other.clip_ids),
    ) and torch.equal(one.features.frames, other.features.frames)


def many(tmp_path: Path, count: int = 60, files: int = 3) -> Index:
    """Clips of several files."""
    uris = [
        write(
            tmp_path / f"{file}.parquet",
            [
                clip(f"x#{file}.{n}", 10 + 7 * n % 40, ref_text="ab"[: 1 + n % 2])
                for n in range(count // files)
            ],
        )
        for file in range(files)
    ]
    return build_index(Rows.read(uris, STORAGE, ["text"]), TRANSCRIBE, Limits()).index


def test_a_batch_is_its_clips_end_to_end(tmp_path: Path) -> None:
    clips = [
        clip("x#0", 30, ref_text="ab"),
        clip("x#1", 20, ref_text="b", speed=0.5),
        clip("x#2", 25, ref_text="a"),
    ]
    index = index_of(tmp_path, clips, TRANSCRIBE)
    batch = reader_of(tmp_path, index, seed=3).batch(pack(2, 0, epoch=1, number=4))
    assert (batch.clip_ids, batch.speeds) == (["x#2", "x#0"], [1.0, 1.0])
    assert batch.seed == pack_seed(3, 1, 4)
    assert batch.features.lengths == (25, 30)
    assert batch.features.frames.dtype == torch.float32
    expected = b"".join(clips[n]["features"] for n in (2, 0))
    assert batch.features.frames.half().numpy().tobytes() == expected
    assert [target.tolist() for target in batch.targets["transcribe"] if target is not None] == [[1], [1, 2]]


def test_each_task_has_its_targets(tmp_path: Path) -> None:
    clips = [
        clip("one", 40, ref_text="ab", ref_label="yes", speaker="s"),
        clip("two", 40, ref_text=None, ref_label=None, speaker="t"),
        clip("three", 40, ref_text="b", ref_label="no", speaker=None),
    ]
    marks = {
        "one": Marks([Segment("p", 0.2, 0.4), Segment("q", 0.3, 0.8)]),
        "three": Marks([Segment("p", 5, 6)]),  # after the end
    }
    labellers: dict[str, Labeller] = {
        **TRANSCRIBE,
        "classify": Classify("label", ["no", "yes"]),
        "embed": Embed("speaker", ["s", "t"], CONFIG),
        "diarize": Diarize(marks, 2, FRAME_S),
    }
    batch = reader_of(tmp_path, index_of(tmp_path, clips, labellers)).batch(pack(0, 1, 2))
    found = {
        task: [None if one is None else one.tolist() for one in targets]
        for task, targets in batch.targets.items()
    }
    activity = found.pop("diarize")
    assert found == {"transcribe": [[1, 2], None, [2]], "classify": [1, None, 0], "embed": [0, 1, None]}
    assert activity[1] is None
    speech = np.array(activity[0])
    assert speech.shape == (40, 2)
    assert np.flatnonzero(speech[:, 0]).tolist() == list(range(10, 20))
    assert np.flatnonzero(speech[:, 1]).tolist() == list(range(15, 40))
    silent = batch.targets["diarize"][2]
    assert silent is not None
    assert silent.shape == (40, 0)
    assert {one.dtype for one in batch.targets["embed"] if one is not None} == {torch.int64}


def test_batches_come_in_the_order_of_the_packs(tmp_path: Path) -> None:
    index = many(tmp_path)
    order = Order(index.frames, index.file, 120, 0)
    packs = [*order.packs(0), *order.packs(1)]
    reader = reader_of(tmp_path, index)
    batches = list(reader.stream(packs, threads=3))
    assert [batch.pack[:2] for batch in batches] == [pack[:2] for pack in packs]
    for batch, one in zip(batches, packs, strict=True):
        assert batch.clip_ids == [index.clip_ids[n].as_py() for n in one.examples.tolist()]
    assert reader.waited_s > 0


def test_batches_are_functions_of_seed_and_pack(tmp_path: Path) -> None:
    index = many(tmp_path)
    augmenter = Augmenter(Augmentation(gain_db=6, noise=("white",), mel_warp=0.1, freq_masks=2), extractor())
    packs = Order(index.frames, index.file, 300, 0).packs(2)
    first = list(reader_of(tmp_path, index, augmenter).stream(packs, threads=1))
    backwards = list(reader_of(tmp_path, index, augmenter).stream(packs[::-1], threads=4))
    assert all(same(one, other) for one, other in zip(first, reversed(backwards), strict=True))
    other_seed = reader_of(tmp_path, index, augmenter, seed=1).batch(packs[0])
    other_epoch = reader_of(tmp_path, index, augmenter).batch(packs[0]._replace(epoch=3))
    for other in (other_seed, other_epoch):
        assert other.features.lengths == first[0].features.lengths
        assert not torch.allclose(other.features.frames, first[0].features.frames, atol=0.1)


def test_clips_of_a_pack_are_changed_each_in_its_own_way(tmp_path: Path) -> None:
    index = index_of(tmp_path, [clip("x#0", 30, ref_text="a")], TRANSCRIBE)
    batch = reader_of(tmp_path, index, Augmenter(Augmentation(mel_warp=0.2), extractor())).batch(pack(0, 0))
    one, other = batch.features.split()
    assert not torch.allclose(one, other, atol=0.01)


def test_a_clip_that_is_not_finite_is_left_out_and_told(tmp_path: Path) -> None:
    bad = clip("bad", 20, ref_text="b")
    features = np.frombuffer(bad["features"], np.float16).copy()
    features[7] = np.nan
    bad["features"] = features.tobytes()
    index = index_of(tmp_path, [clip("good", 20, ref_text="a"), bad], TRANSCRIBE)
    for augmenter in (None, Augmenter(Augmentation(gain_db=3), extractor())):
        reader = reader_of(tmp_path, index, augmenter)
        batch = reader.batch(pack(0, 1))
        good, zeros = batch.features.split()
        assert bool(good.isfinite().all())
        assert float(good.abs().max()) > 1
        assert not zeros.any()
        targets = batch.targets["transcribe"]
        assert targets[0] is not None
        assert targets[1] is None
        assert batch.unusable == ["bad"]


def test_of_joined_clips_the_broken_one_is_told(tmp_path: Path) -> None:
    bad = clip("bad", 20, ref_text="b")
    bad["features"] = np.float16(np.nan).tobytes() + bad["features"][2:]
    index = index_of(tmp_path, [clip("good", 20, ref_text="a"), bad], TRANSCRIBE)
    augmenter = Augmenter(Augmentation(), extractor(), joining=Joining(1.0, 0, 1000))
    batch = reader_of(tmp_path, index, augmenter).batch(pack(0, 1))
    assert (batch.clip_ids, batch.joined, batch.unusable) == (["good"], ["bad"], ["bad"])
    assert not batch.features.frames.any()


def joined(tmp_path: Path, frames: Sequence[int], **settings: Any) -> Batch:
    clips = [clip(f"x#{n}", length, ref_text="ab") for n, length in enumerate(frames)]
    index = index_of(tmp_path, clips, TRANSCRIBE)
    joining = Joining(**{"prob": 1.0, "delimiter": 0, "max_frames": 1000, **settings})
    augmenter = Augmenter(Augmentation(), extractor(), joining=joining)
    return reader_of(tmp_path, index, augmenter).batch(pack(*range(len(frames))))


def test_neighbours_are_joined(tmp_path: Path) -> None:
    batch = joined(tmp_path, [20, 30, 25])
    assert (batch.clip_ids, batch.joined) == (["x#0", "x#2"], ["x#1", None])
    assert sorted(batch.all_ids) == ["x#0", "x#1", "x#2"]
    assert [part.joined for part in halves(batch)] == [["x#1"], [None]]
    assert batch.features.lengths == (50, 25)
    assert [one.tolist() for one in batch.targets["transcribe"] if one is not None] == [
        [1, 2, 0, 1, 2],
        [1, 2],
    ]
    assert [
        one.tolist()
        for one in joined(tmp_path, [20, 30], delimiter=None).targets["transcribe"]
        if one is not None
    ] == [[1, 2, 1, 2]]


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ({"max_frames": 50}, (50,)),
        ({"max_frames": 49}, (20, 30)),
        ({"prob": 0.0}, (20, 30)),
        ({"stride": 10}, (50,)),
        ({"stride": 11}, (20, 30)),  # five tokens need five frames
    ],
)
def test_no_clip_becomes_too_long_for_the_model_or_its_text(
    tmp_path: Path, settings: dict[str, Any], lengths: tuple[int, ...]
) -> None:
    assert joined(tmp_path, [20, 30], **settings).features.lengths == lengths


def test_a_share_of_the_clips_is_joined(tmp_path: Path) -> None:
    batch = joined(tmp_path, [10] * 300, prob=0.25)
    assert sum(batch.features.lengths) == 3000
    pairs = sum(clip_id is not None for clip_id in batch.joined)
    assert 0.15 < pairs / len(batch.clip_ids) < 0.35


def test_only_texts_are_joined(tmp_path: Path) -> None:
    clips = [clip("x#0", ref_text="a", ref_label="yes")]
    index = index_of(tmp_path, clips, {**TRANSCRIBE, "classify": Classify("label", ["yes"])})
    augmenter = Augmenter(Augmentation(), extractor(), joining=Joining(0.5, 0, 100))
    with pytest.raises(JobError, match="--concat-prob joins texts: it goes with --task transcribe alone"):
        reader_of(tmp_path, index, augmenter)


def test_a_table_that_changed_is_told(tmp_path: Path) -> None:
    index = index_of(tmp_path, [clip("x#0", 20, ref_text="a")], TRANSCRIBE)
    for other in ([clip("x#0", 21)], [clip("x#0", None)], []):
        write(tmp_path / "part-0.parquet", other)
        with pytest.raises(JobError, match=r"part-0\.parquet has other features in row 0 than .* of x#0"):
            reader_of(tmp_path, index).batch(pack(0))


def test_failures_surface_in_their_turn(tmp_path: Path) -> None:
    index = many(tmp_path)
    Path(index.files[2]).unlink()
    packs = [pack(*range(0, 10)), pack(*range(20, 30), number=1), pack(*range(40, 50), number=2)]
    batches = reader_of(tmp_path, index).stream(packs)
    assert [next(batches).pack.number for _ in range(2)] == [0, 1]
    with pytest.raises(StorageError, match=r"2\.parquet does not exist"):
        next(batches)


def test_few_batches_are_made_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = many(tmp_path)
    made: list[int] = []
    enough, make = Event(), Reader.batch

    def counted(self: Reader, one: Pack) -> Batch:
        made.append(one.number)
        if len(made) == 4:
            enough.set()
        return make(self, one)

    monkeypatch.setattr(Reader, "batch", counted)
    batches = reader_of(tmp_path, index).stream((pack(n % 60, number=n) for n in range(10**6)), threads=2)
    assert next(batches).pack.number == 0
    assert next(batches).pack.number == 1
    assert enough.wait(60)
    batches.close()  # type: ignore[attr-defined]
    assert len(made) == 4
