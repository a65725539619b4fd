"""One run, all annotations: the numbers of the published classes, from the Parquet."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2CTCTokenizer

from pipeline.audio import recording as audio
from pipeline.job import run
from pipeline.spec import AnnotateSpec, ClassifySpec, DiarizeSpec, EmbedSpec, TranscribeSpec
from tests.conftest import ROOT
from tests.jobs.peers import answer, build, save
from tests.jobs.tables import assert_close, rows_of

Row = dict[str, Any]
pytestmark = pytest.mark.usefixtures("local_ray")
TASKS = ("transcribe", "classify", "diarize", "embed")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's loose files and what its manifest names, as files: rates, formats and channels differ."""
    folder = tmp_path_factory.mktemp("corpus")
    for source in (ROOT / "demo/corpus/loose", ROOT / "demo/audio"):
        for file in source.iterdir():
            shutil.copyfile(file, folder / file.name)
    return folder


@pytest.fixture(scope="module")
def peers() -> dict[str, Any]:
    return {task: build(task) for task in TASKS}


@pytest.fixture(scope="module")
def checkpoints(peers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("checkpoints")
    return {task: str(save(model, home / task)) for task, model in peers.items()}


@pytest.fixture(scope="module")
def together(
    corpus: Path, checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], dict[str, Row]]:
    output = tmp_path_factory.mktemp("annotated") / "out"
    summary = run(AnnotateSpec(input=[str(corpus)], output=str(output), **checkpoints)).as_json()
    return summary, rows_of(output)


@pytest.fixture(scope="module")
def clips(corpus: Path) -> dict[str, np.ndarray]:
    return {
        f"{file.name}#{file.stem}": audio.decode(file.read_bytes()).samples
        for file in sorted(corpus.iterdir())
    }


def test_the_rows_are_those_of_the_clips(together: Any, clips: dict[str, np.ndarray]) -> None:
    assert set(together[1]) == set(clips)
    assert [row["error"] for row in together[1].values() if row["error"]] == []


def test_one_backbone_runs_once_for_four_heads(together: Any) -> None:
    encoder = together[0]["encoder"]
    assert encoder["backbones"] == [list(TASKS)]
    frames = sum(len(row["frame_activity"]) for row in together[1].values())
    assert encoder["frames"] == frames
    assert 1 <= encoder["passes"] <= len(together[1])


def test_transcripts(together: Any, clips: Any, peers: Any, checkpoints: Any) -> None:
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(checkpoints["transcribe"])
    for clip_id, samples in clips.items():
        ids = answer(peers["transcribe"], samples).logits[0].argmax(-1)
        decoded = tokenizer.decode(ids, output_word_offsets=True)
        row = together[1][clip_id]
        assert row["text"] == decoded.text
        starts = [word["start_offset"] * 0.02 for word in decoded.word_offsets]
        assert [word["start_s"] for word in row["words"]] == pytest.approx(starts, abs=1e-4)


def test_labels(together: Any, clips: Any, peers: Any) -> None:
    for clip_id, samples in clips.items():
        scores = answer(peers["classify"], samples).logits[0].softmax(-1)
        row = together[1][clip_id]
        best = scores.sort(descending=True)
        assert [label["label"] for label in row["labels"]] == [f"LABEL_{i}" for i in best.indices[:5]]
        assert [label["score"] for label in row["labels"]] == pytest.approx(
            best.values[:5].tolist(), abs=1e-4
        )
        assert (row["label"], row["label_score"]) == tuple(row["labels"][0].values())


def test_frame_probabilities_and_activity(together: Any, clips: Any, peers: Any) -> None:
    for clip_id, samples in clips.items():
        expected = answer(peers["diarize"], samples).logits[0].sigmoid().numpy()
        row = together[1][clip_id]
        found = np.array(row["frame_probabilities"])
        np.testing.assert_allclose(found, expected, atol=1e-4)
        clear = np.abs(expected - 0.5) > 1e-4  # nearer than that, rounding decides
        bits = (np.array(row["frame_activity"])[:, None] >> np.arange(3)) & 1
        assert np.array_equal(bits[clear], (expected > 0.5)[clear])


def test_embeddings(together: Any, clips: Any, peers: Any) -> None:
    for clip_id, samples in clips.items():
        expected = answer(peers["embed"], samples).embeddings[0].numpy()
        row = together[1][clip_id]
        norm = float(np.linalg.norm(expected))
        assert row["embedding_norm"] == pytest.approx(norm, rel=1e-4)
        np.testing.assert_allclose(row["embedding"], expected / norm, atol=1e-4)
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("task", "declaration"),
    [
        ("transcribe", TranscribeSpec),
        ("classify", ClassifySpec),
        ("diarize", DiarizeSpec),
        ("embed", EmbedSpec),
    ],
)
def test_each_job_alone_gives_the_same(
    task: str, declaration: Any, corpus: Path, checkpoints: Any, together: Any, tmp_path: Path
) -> None:
    run(declaration(input=[str(corpus)], output=str(tmp_path / "out"), model=checkpoints[task]))
    alone = rows_of(tmp_path / "out")
    assert alone.keys() == together[1].keys()
    for clip_id, row in alone.items():
        both = together[1][clip_id]
        for name, value in row.items():
            if name != "encoder_s":
                assert_close(value, both[name], f"{clip_id} {name}")


def test_multi_label_scores_are_sigmoids(corpus: Path, tmp_path: Path, clips: Any) -> None:
    peer = build("classify", problem_type="multi_label_classification")
    checkpoint = save(peer, tmp_path / "model")
    run(ClassifySpec(input=[str(corpus)], output=str(tmp_path / "out"), model=str(checkpoint), top_k=7))
    for clip_id, row in rows_of(tmp_path / "out").items():
        scores = answer(peer, clips[clip_id]).logits[0].sigmoid().tolist()
        assert {label["label"]: label["score"] for label in row["labels"]} == pytest.approx(
            {f"LABEL_{index}": score for index, score in enumerate(scores)}, abs=1e-4
        )


def test_two_backbones_run_one_after_another_and_a_weighted_sum_reads_every_layer(
    corpus: Path, checkpoints: Any, together: Any, tmp_path: Path, clips: Any
) -> None:
    peer = build("embed", seed=5, use_weighted_layer_sum=True)
    other = save(peer, tmp_path / "model")
    summary = run(
        AnnotateSpec(
            input=[str(corpus)],
            output=str(tmp_path / "out"),
            classify=checkpoints["classify"],
            embed=str(other),
        )
    ).as_json()
    assert summary["encoder"]["backbones"] == [["classify"], ["embed"]]
    assert summary["encoder"]["frames"] == 2 * together[0]["encoder"]["frames"]
    for clip_id, row in rows_of(tmp_path / "out").items():
        expected = answer(peer, clips[clip_id]).embeddings[0]
        np.testing.assert_allclose(row["embedding"], expected / torch.linalg.norm(expected), atol=1e-4)
        assert_close(row["labels"], together[1][clip_id]["labels"], clip_id)


def test_a_weighted_sum_reads_the_frames_before_an_adapter(corpus: Path, tmp_path: Path, clips: Any) -> None:
    peer = build(
        "embed", use_weighted_layer_sum=True, add_adapter=True, num_adapter_layers=1, output_hidden_size=48
    )
    checkpoint = save(peer, tmp_path / "model")
    run(EmbedSpec(input=[str(corpus)], output=str(tmp_path / "out"), model=str(checkpoint)))
    # The peer counts frames as if the adapter had shortened these too, and pools the first half only.
    peer._get_feat_extract_output_lengths = lambda lengths, *_: lengths
    for clip_id, row in rows_of(tmp_path / "out").items():
        expected = answer(peer, clips[clip_id]).embeddings[0]
        np.testing.assert_allclose(row["embedding"], expected / torch.linalg.norm(expected), atol=1e-4)


def test_backbones_that_do_not_fit_together_have_pools_of_their_own(
    corpus: Path,
    checkpoints: Any,
    together: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.engine.cluster.pools._room_for_weights", lambda *_: 0.0)
    (corpus / "broken.wav").write_bytes(b"RIFF not")
    other = save(build("embed", seed=5), tmp_path / "model")
    try:
        summary = run(
            AnnotateSpec(
                input=[str(corpus)],
                output=str(tmp_path / "out"),
                transcribe=checkpoints["transcribe"],
                diarize=checkpoints["diarize"],
                embed=str(other),
            )
        ).as_json()
    finally:
        (corpus / "broken.wav").unlink()
    assert len([stage for stage in summary["stage_s"] if stage.startswith("annotate")]) == 2
    assert summary["encoder"]["backbones"] == [["transcribe", "diarize"], ["embed"]]
    rows = rows_of(tmp_path / "out")
    assert rows.pop("broken.wav#broken")["error"]["code"] == "undecodable"
    for clip_id, row in rows.items():
        both = together[1][clip_id]
        for name in ("text", "words", "segments", "frame_activity", "frame_probabilities", "duration_s"):
            assert_close(row[name], both[name], f"{clip_id} {name}")
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)
        assert row["encoder_s"] > 0
