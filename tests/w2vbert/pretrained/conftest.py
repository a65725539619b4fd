"""Checkpoints that the tests of saving and loading share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.w2vbert.heads.test_heads import build
from w2vbert.heads import Wav2Vec2BertForCTC


@pytest.fixture(scope="module")
def ctc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved CTC model."""
    path = tmp_path_factory.mktemp("ctc")
    build(Wav2Vec2BertForCTC).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, ctc: Path) -> Path:
    """The encoder of `ctc`, saved by itself."""
    path = tmp_path_factory.mktemp("encoder")
    Wav2Vec2BertForCTC.from_pretrained(ctc).wav2vec2_bert.save_pretrained(path)
    return path
