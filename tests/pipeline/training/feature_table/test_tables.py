"""The feature tables of a run: their names, and what is said of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from pipeline.errors import JobError
from pipeline.storage import join
from pipeline.training.feature_table.tables import FeatureTables
from pipeline.training.spec import FinetuneSpec
from tests.pipeline.training.tables import STORAGE, clip, extractor, write


def tables_of(tmp_path: Path, **given: Any) -> FeatureTables:
    told = {"task": ["transcribe"], "train": ["corpus"], "model": "base", "output": str(tmp_path / "out")}
    spec = FinetuneSpec(**{**told, **given})
    home = str(tmp_path / "features") if spec.run.features else join(spec.run.output, "features")
    return FeatureTables(spec, extractor(), STORAGE, home, lambda line: None)


@pytest.mark.parametrize("flag", ["train", "valid", "noise"])
def test_input_that_is_not_there_is_told_by_its_own_flag(tmp_path: Path, flag: str) -> None:
    with pytest.raises(JobError, match=f"^--{flag} {tmp_path}/nowhere: does not exist"):
        tables_of(tmp_path).files(flag, [f"{tmp_path}/nowhere"])


@pytest.mark.parametrize("flag", ["output", "features"])
def test_a_place_that_cannot_be_used_is_told_by_its_own_flag(tmp_path: Path, flag: str) -> None:
    """Nor is a flag proposed that would delete no features."""
    write(tmp_path / "corpus" / "a.parquet", [clip("x")])
    asked = tables_of(tmp_path, **({"features": str(tmp_path / "features")} if flag == "features" else {}))
    place = asked.place("train", [str(tmp_path / "corpus")])
    write(Path(place, "stranger.parquet"), [clip("x")])
    with pytest.raises(JobError) as told:
        asked.files("train", [str(tmp_path / "corpus")])
    assert str(told.value).startswith(f"--{flag} {place} holds Parquet files of another origin")
    assert str(told.value).endswith("Choose another output, or delete this one.")


def test_other_input_and_other_settings_have_other_tables(tmp_path: Path) -> None:
    places = {
        tables_of(tmp_path, **given).place("train", inputs)
        for inputs in (["a", "b"], ["a"])
        for given in ({}, {"channel": "left"}, {"max_duration_s": 20.0}, {"where": "speaker = 'a'"})
    }
    assert len(places) == 8
    usual = tables_of(tmp_path, seed=3).place("train", ["b", "a"])  # what decides no features
    assert usual in places
    assert tables_of(tmp_path).place("train", ["a", "b"], 0.9) == f"{usual}-0.9"


@pytest.mark.usefixtures("local_ray")
def test_what_changed_or_is_gone_teaches_nothing_old(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    said: list[str] = []

    def record(name: str, text: str | None) -> None:
        (folder / "audio").mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "audio" / f"{name}.wav", np.full(8000, 0.1 * len(name)), 16_000)
        if text is not None:
            (folder / f"{name}.jsonl").write_text(
                json.dumps({"audio_filepath": f"audio/{name}.wav", "text": text}) + "\n"
            )

    def texts() -> tuple[set[str], list[str]]:
        tables = replace(tables_of(tmp_path), say=said.append)
        files = tables.files("train", [str(folder)])
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        return {str(Path(file).parent.name) for file in files}, sorted(row["ref_text"] for row in rows)

    record("a", "one")
    record("b", "two")
    (home,), found = texts()
    assert found == ["one", "two"]
    record("ccc", "three")  # new: the table grows
    assert texts() == ({home}, ["one", "three", "two"])
    record("b", "corrected")
    assert texts() == ({f"{home}.2"}, ["corrected", "one", "three"])
    assert texts() == ({f"{home}.2"}, ["corrected", "one", "three"])
    (folder / "a.jsonl").unlink()
    (folder / "audio" / "a.wav").unlink()
    assert texts() == ({f"{home}.3"}, ["corrected", "three"])
    assert sum("shards changed or are gone" in line for line in said) == 2
