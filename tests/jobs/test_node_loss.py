"""A node that is lost while a job runs costs time, and nothing else."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest
import soundfile

from tests.conftest import ROOT
from tests.head_node import run_program
from tests.jobs.tables import assert_close, rows_of

SHARDS, CLIPS = 4, 50


def make_corpus(folder: Path) -> None:
    sound, rate = soundfile.read(ROOT / "demo/audio/session.flac", dtype="int16")
    rng = random.Random(2)
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"shard-{shard}.tar", "w") as tar:
            for index in range(CLIPS):
                start = rng.randrange(len(sound) - 2 * rate)
                buffer = io.BytesIO()
                soundfile.write(buffer, sound[start : start + rate], rate, format="WAV")
                member = tarfile.TarInfo(f"{index:05d}.wav")
                member.size = len(buffer.getvalue())
                tar.addfile(member, io.BytesIO(buffer.getvalue()))


@pytest.mark.soak
@pytest.mark.usefixtures("own_cluster")
def test_a_cluster_that_shrank_goes_on_with_what_is_left(tmp_path: Path) -> None:
    corpus, output, again = (tmp_path / name for name in ("in", "out", "again"))
    make_corpus(corpus)
    said = run_program("tests.jobs.two_nodes", corpus, output, again, timeout_s=400, OMP_NUM_THREADS="1")
    assert "nodes left 1" in said
    lost_after = int(said.split("lost after ")[1].split()[0])
    assert lost_after < len(list(again.glob("*.parquet"))) / 2
    expected, found = rows_of(output), rows_of(again)
    assert len(found) == SHARDS * CLIPS
    assert found.keys() == expected.keys()
    for clip_id, row in found.items():
        assert row["error"] is None
        for column in row.keys() - {"encoder_s"}:
            assert_close(row[column], expected[clip_id][column], f"{clip_id} {column}")
