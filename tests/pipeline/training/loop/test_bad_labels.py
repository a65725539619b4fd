"""Wrong labels are found by their losses, with the query of docs/queries.md."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np

from pipeline.training.group import Group
from pipeline.training.loop.worker import train
from pipeline.training.report.losses import merge
from pipeline.training.report.watch import PARTS
from tests.conftest import ROOT
from tests.pipeline.training.loop.made_up import row_of, training_of
from tests.pipeline.training.tables import STORAGE
from tests.spoken import utterances

CLIPS, WRONG = 400, 20


def test_shuffled_texts_have_the_highest_losses(tmp_path: Path) -> None:
    spoken = utterances(CLIPS)
    chosen = np.random.default_rng(1).choice(CLIPS, WRONG, replace=False)
    texts = {one.name: one.text for one in spoken}
    for place, other in zip(chosen, np.roll(chosen, 1), strict=True):
        texts[spoken[place].name] = spoken[other].text
    wrong = {one.name for one in spoken if texts[one.name] != one.text}
    rows = [row_of(one, ref_text=texts[one.name], text=texts[one.name]) for one in spoken]
    training = training_of(tmp_path, rows, rate=3e-3, num_epochs=9)
    train(training, Group(), lambda kind, news: None)
    losses = tmp_path / "losses.parquet"
    merge(f"{training.output}/{PARTS}", str(losses), STORAGE)
    told = "SELECT clip_id, text AS ref_text, '' AS text"
    duckdb.sql(f"{told} FROM '{tmp_path}/part-0.parquet'").write_parquet(str(tmp_path / "annotated.parquet"))
    found = duckdb.sql(query(tmp_path)).fetchall()
    highest = [row[0] for row in found[:WRONG]]
    assert len(wrong.intersection(highest)) >= 0.8 * WRONG


def query(folder: Path) -> str:
    page = (ROOT / "docs" / "queries.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"never learn.+?```sql\n(.+?)```", page, re.DOTALL)
    text = text.replace("demo/out/finetuned/losses.parquet", str(folder / "losses.parquet"))
    return text.replace("demo/out/annotated/*.parquet", str(folder / "annotated.parquet"))
