"""Our tokenizer and the published one of the same vocabulary."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from transformers import Wav2Vec2CTCTokenizer as Peer

from w2vbert import Wav2Vec2CTCTokenizer

VOCAB = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *"|ETAONI'x"])}


def both(vocab: dict[str, int] = VOCAB, **options: Any) -> tuple[Wav2Vec2CTCTokenizer, Peer]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(vocab), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(path, **options), Peer(str(path), **options)


def trie_is_right(peer: Peer, text: str) -> bool:
    """The peer's search may go on with a match that has failed, and find a token that is not there."""
    pieces = peer.tokens_trie.split(text)
    tokens = peer.tokens_trie._tokens
    return not any(token in piece for piece in pieces if piece not in tokens for token in tokens)
