"""docs/finetune.md, followed to the letter."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import jiwer
import numpy as np
import pytest
import soundfile
import torch
import transformers

from demo.espeak import RATE, Voice, digit_string, say
from pipeline.training.spec import FinetuneSpec
from tests.conftest import ROOT
from w2vbert import SeamlessM4TFeatureExtractor, Wav2Vec2BertForCTC
from w2vbert.tokenizer.tokenizer import Wav2Vec2CTCTokenizer

PAGE = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
CLIPS = 160


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Followed:
    """Where the page was followed, what each command printed, and what is said in the recordings."""

    home: Path
    printed: list[str]
    texts: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(command, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def record(folder: Path) -> dict[str, str]:
    """Digits said faster than the demo's checkpoint has ever heard, by eight voices."""
    folder.mkdir()
    rng, texts = np.random.default_rng(0), {}
    with (folder / "labels.tsv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file, delimiter="\t", lineterminator="\n")
        lines.writerow(("path", "text", "speaker"))
        for number in range(CLIPS):
            name, text = f"{number:03}.wav", digit_string(rng, int(rng.integers(1, 4)))
            voice = f"en-us+{'mf'[number % 2]}{1 + number // 2 % 4}"
            spoken = say(text, Voice(voice, int(rng.integers(250, 290)), int(rng.integers(30, 70))))
            soundfile.write(folder / name, spoken, RATE)
            lines.writerow((name, text, voice))
            texts[name] = text
    return texts


@pytest.fixture(scope="module")
def followed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Followed:
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng, which speaks the recordings, is not installed")
    home = tmp_path_factory.mktemp("newcomer")
    for folder in ("jobs", "pipeline", "w2vbert", "demo"):
        shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__", "out"))
    found = Followed(home, [], record(home / "recordings"))
    for block in blocks("sh"):
        words = [sys.executable if word == "python" else word for word in shlex.split(block)]
        found.printed.append(found.run(*words))
    return found


def fields(printed: str) -> dict[str, str]:
    """The lines of a summary by the names before them."""
    pairs = [re.split(r" {2,}", line, maxsplit=1) for line in printed.splitlines()]
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


@pytest.mark.slow
def test_the_plan(followed: Followed) -> None:
    plan = fields(followed.printed[0])
    assert plan["examples"].startswith("140 of 140 rows")
    assert plan["validation"].startswith("20 examples")
    assert "'e' " in plan["characters"]
    assert re.match(r"\d+ an epoch, of 1 pack\(s\); \d+ in all, 12 epochs", plan["steps"])
    assert re.match(r"about .+ an epoch, .+ in all", plan["time"])


@pytest.mark.slow
def test_the_checkpoint_is_better(followed: Followed) -> None:
    summary = fields(followed.printed[1])
    held_out = float(re.match(r"WER ([\d.]+)%", summary["transcribe"])[1]) / 100  # type: ignore[index]
    heard = dict(duckdb.sql(f"SELECT path, text FROM '{followed.home}/table/*.parquet'").fetchall())
    assert heard.keys() == followed.texts.keys()
    names = sorted(heard)
    after = jiwer.wer([followed.texts[name] for name in names], [heard[name] for name in names])
    before = word_error_rate(followed, ROOT / "demo" / "checkpoint")
    assert after < 0.7 * before
    assert held_out < before


def word_error_rate(followed: Followed, checkpoint: Path) -> float:
    extractor = SeamlessM4TFeatureExtractor.from_pretrained(checkpoint)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(checkpoint)
    model = Wav2Vec2BertForCTC.from_pretrained(checkpoint).eval()
    said, heard = [], []
    for name, text in followed.texts.items():
        audio, _ = soundfile.read(followed.home / "recordings" / name, dtype="float32")
        with torch.inference_mode():
            logits = model(torch.from_numpy(extractor.extract(audio))[None]).logits
        said.append(text)
        heard.append(tokenizer.decode(logits[0].argmax(dim=-1)))
    return float(jiwer.wer(said, heard))


@pytest.mark.slow
def test_losses_by_sql(followed: Followed) -> None:
    (query,) = blocks("sql")
    rows = duckdb.sql(query.replace("ours/", f"{followed.home}/ours/")).fetchall()
    assert len(rows) == 10
    assert [loss for _, loss, _ in rows] == sorted((loss for _, loss, _ in rows), reverse=True)
    for clip_id, _, tokens in rows:
        record = int(clip_id.partition("#")[2])  # from 1
        assert tokens == len(followed.texts[f"{record - 1:03}.wav"])


@pytest.mark.slow
def test_the_peer_reads_it(followed: Followed) -> None:
    loads = blocks("python")[0]
    printed = followed.run(sys.executable, "-c", loads).strip()
    query = f"SELECT text FROM '{followed.home}/table/*.parquet' WHERE path = '000.wav'"
    assert [(printed,)] == duckdb.sql(query).fetchall()


@pytest.mark.slow
def test_the_output_holds_what_the_page_says(followed: Followed) -> None:
    table = PAGE[PAGE.index("## What lies in the output") : PAGE.index("## When it is killed")]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    named -= {"classify/", "diarize/", "embed/", "masked-prediction/"}  # other tasks
    named = {name.removesuffix("step-…/").rstrip("/") for name in named}
    ours = followed.home / "ours"
    assert [name for name in named if not (ours / name).exists()] == []
    assert {path.name for path in ours.iterdir() if path.name[0] not in "_."} <= {
        name.partition("/")[0] for name in named
    }
    assert {path.name for path in (ours / "data").iterdir()} <= {Path(name).name for name in named}


def test_the_page_names_what_there_is() -> None:
    parts = [field.annotation for field in FinetuneSpec.model_fields.values()]
    known = {name.replace("_", "-") for part in parts if part for name in part.model_fields}
    of_others = {"working-dir", "input", "transcribe", "logdir"}
    assert set(re.findall(r"--([a-z][a-z-]+)", PAGE)) - known - of_others == set()


def test_lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapt, merge = blocks("python")[1:]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    torch.manual_seed(0)
    held: dict[str, Any] = {}
    exec(adapt, held)
    adapted, before = held["adapted"], {name: p.clone() for name, p in held["model"].named_parameters()}
    features, labels = torch.randn(2, 60, 160), torch.tensor([[3, 4, 5], [5, 6, 7]])
    optimiser = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = adapted(input_features=features, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    changed = {name for name, p in held["model"].named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all("lora_" in name or "lm_head.modules_to_save" in name for name in changed)
    adapted.eval()
    with torch.inference_mode():
        expected = adapted(input_features=features).logits
    exec(merge, held)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size < 100_000
    for kind in (Wav2Vec2BertForCTC, transformers.Wav2Vec2BertForCTC):
        with torch.inference_mode():
            logits = kind.from_pretrained(tmp_path / "merged").eval()(features).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
