"""Fine-tuning as a job: from labelled recordings, some of which are of no use, to a checkpoint."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from jobs.annotate import main as annotate
from jobs.cli.training import main
from tests.jobs.finetuning import (
    FAST,
    RATE,
    Recording,
    arguments,
    events,
    losses,
    recordings,
    tones,
    write_corpus,
)
from tests.jobs.tables import rows_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]
GOOD = recordings(16)
POISON = [  # in the order of `poison`
    *("non_finite", "label_too_long", "empty_label", "unknown_characters"),
    *("silent", "too_long", "undecodable"),
]


@pytest.fixture(scope="module", autouse=True)
def _soon() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FAST.items():
            patch.setenv(name, value)
        yield


def poison() -> list[Recording]:
    """The first gets its fault when its features are stored."""
    long = io.BytesIO()
    soundfile.write(long, np.zeros(30 * 60 * RATE, np.int16), RATE, format="FLAC")
    return [
        Recording("not-a-number", "abcd"),
        Recording("label-too-long", "ab" * 40, tones("ab", 1)),
        Recording("empty-label", " ", tones("ab", 2)),
        Recording("unknown-characters", "aXb", tones("ab", 3)),
        Recording("silence", "ab", np.zeros(RATE, np.float32)),
        Recording("half-an-hour", "ab", long.getvalue()),
        Recording("no-audio", "ab", b"RIFF and nothing else"),
    ]


def number_of(clip_id: str) -> int:
    """Of a clip, from 0; its line in the manifest, from 1, is part of its id."""
    return int(clip_id.partition("#")[2]) - 1


def break_features(output: Path, number: int) -> None:
    """Makes a number of a clip's features NaN, as a disk might."""
    (path,) = [path for path in output.glob("features/train-*/*.parquet") if "-errors" not in path.name]
    table = pq.read_table(path)
    features = table["features"].to_pylist()
    row = [number_of(clip_id) for clip_id in table["clip_id"].to_pylist()].index(number)
    features[row] = np.float16(np.nan).tobytes() + features[row][2:]
    at = table.schema.get_field_index("features")
    broken = table.set_column(at, table.schema.field(at), pa.array(features, pa.large_binary()))
    pq.write_table(broken, path, compression="none", use_dictionary=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The corpus, and a run on it."""
    folder = tmp_path_factory.mktemp("poison")
    corpus = write_corpus(folder / "corpus", [*GOOD, *poison()])
    output = folder / "out"
    told = arguments(corpus, output, max_steps=30, max_unusable=0.5, valid_share=0.3, min_char_count=2)
    assert main([*told, "--plan"]) == 0
    assert not (output / "checkpoints").exists()
    break_features(output, len(GOOD))
    assert main(told) == 0
    return corpus, output


def test_what_is_of_no_use_is_named_with_its_reason(trained: tuple[Path, Path]) -> None:
    _, output = trained
    skipped = pq.read_table(output / "data/skipped.parquet").to_pylist()
    found = {number_of(row["clip_id"]): row["reason"] for row in skipped}
    assert found == dict(enumerate(POISON, len(GOOD)))
    assert len(skipped) == len(found)
    told = [event["reason"] for event in events(output) if event["kind"] == "skipped"]
    assert told == ["the stored features are not finite"]


def test_losses_are_numbers(trained: tuple[Path, Path]) -> None:
    _, output = trained
    found = losses(output)
    assert len(found) > 30
    assert all(np.isfinite(loss) for loss in found.values())
    assert {number_of(clip_id) for _, clip_id, _ in found} == set(range(len(GOOD)))
    assert {split for _, _, split in found} == {"train", "valid"}


def test_annotate_uses_what_came_of_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, output = trained
    checkpoint = output / "transcribe"
    told = ["--input", str(corpus), "--output", str(tmp_path / "out"), "--transcribe", str(checkpoint)]
    assert annotate([*told, "--max-error-rate", "0.5"]) == 0
    texts = [row["text"] for row in rows_of(tmp_path / "out").values() if row["error"] is None]
    assert len(texts) >= len(GOOD)
    assert all(set(text) <= set("abcd [UNK]") for text in texts)


def test_a_finished_run_does_nothing_again(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, output = trained
    before = {path: path.stat().st_mtime_ns for path in (output / "checkpoints").rglob("*")}
    told = arguments(corpus, output, max_steps=30, max_unusable=0.5, valid_share=0.3, min_char_count=2)
    assert main(told) == 0
    assert "this run is done: --overwrite begins it anew" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (output / "checkpoints").rglob("*")} == before


def test_other_settings_are_refused_and_overwrite_keeps_features(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, output = trained
    given: dict[str, Any] = {"max_unusable": 0.5, "valid_share": 0.3, "min_char_count": 2}
    told = arguments(corpus, output, max_steps=2, **given)
    assert main(told) == 2
    assert "holds a run with other settings (max_steps 30, now 2" in capsys.readouterr().err
    features = {path: path.stat().st_mtime_ns for path in (output / "features").rglob("*.parquet")}
    assert main([*told, "--overwrite"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (output / "features").rglob("*.parquet")} == features
    assert {step for step, _, _ in losses(output)} <= {1, 2}
    assert [path.name for path in (output / "checkpoints").glob("step-*")] == ["step-00000002"]


def test_a_model_of_no_numbers_ends_with_status_3(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, output = trained
    model = shutil.copytree(output / "transcribe", tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["lm_head.bias"][:] = np.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    told = arguments(
        corpus, tmp_path / "out", model=model, features=output / "features", max_steps=30, max_unusable=0.5
    )
    assert main([*told, "--max-skipped-batches", "3"]) == 3
    said = capsys.readouterr().err
    assert "4 steps had a loss or a gradient that is not finite, the last one step 4 with" in said
    (last,) = [event for event in events(tmp_path / "out") if event.get("step") == 4 and "clip_ids" in event]
    assert all(clip_id in said for clip_id in last["clip_ids"][:5])


def test_what_cannot_be_trained_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    useless = write_corpus(
        tmp_path / "useless", [Recording("a", "ab" * 40, tones("ab", 1)), Recording("b", " ", tones("ab", 2))]
    )
    told = arguments(useless, tmp_path / "out", max_unusable=1)
    assert main(told) == 2
    assert (
        "--train: none of its 2 clips can be used: empty_label (list.jsonl#2); label_too_long (80 tokens"
        in capsys.readouterr().err
    )
    good = write_corpus(tmp_path / "good", GOOD[:4])
    told = arguments(good, tmp_path / "other", max_unusable=1, valid=useless)
    assert main(told) == 2
    assert (
        "--valid: none of its 2 clips can be used: empty_label (list.jsonl#2); label_too_long (80 tokens"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_workers_that_the_cluster_has_no_room_for(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, output = trained
    told = arguments(corpus, tmp_path / "out", features=output / "features", max_unusable=0.5, num_workers=3)
    assert main(told) == 2
    assert "--num-workers 3: the cluster has room for 2 of 1 CPUs" in capsys.readouterr().err
