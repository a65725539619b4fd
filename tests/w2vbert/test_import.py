"""`import w2vbert` stands by itself: PyTorch, NumPy and safetensors, and nothing that the pipeline needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

FOREIGN = ("ray", "pyarrow", "datasets", "transformers", "torchaudio", "soundfile", "pandas", "pydantic")

PUBLIC = (
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2BertConfig",
    "Wav2Vec2BertForAudioFrameClassification",
    "Wav2Vec2BertForCTC",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2BertForXVector",
    "Wav2Vec2BertModel",
    "Wav2Vec2BertProcessor",
    "Wav2Vec2CTCTokenizer",
)

# Run in a fresh interpreter where these packages are as good as not installed.
BLOCK = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FOREIGN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'transformers'"):
        python(BLOCK + "import transformers")


def test_every_module_without_the_pipeline_s_packages() -> None:
    modules = python(
        BLOCK
        + "import importlib, pkgutil, w2vbert\n"
        + "for module in pkgutil.walk_packages(w2vbert.__path__, 'w2vbert.'):\n"
        + "    importlib.import_module(module.name)\n"
        + "    print(module.name)\n"
    )
    assert {"w2vbert.heads.ctc", "w2vbert.features.extractor", "w2vbert.tokenizer.tokenizer"} <= set(
        modules.split()
    )


def test_public_names() -> None:
    names = python(BLOCK + "from w2vbert import *\nprint(*(name for name in dir() if name[0].isupper()))")
    assert set(PUBLIC) <= set(names.split())
    import w2vbert

    assert sorted(w2vbert.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert getattr(w2vbert, name).__name__ == name


def test_a_model_runs_without_the_pipeline_s_packages() -> None:
    shape = python(
        BLOCK
        + "import torch, w2vbert\n"
        + "config = w2vbert.Wav2Vec2BertConfig(hidden_size=16, num_hidden_layers=1, vocab_size=5)\n"
        + "print(*w2vbert.Wav2Vec2BertForCTC(config).eval()(torch.zeros(1, 7, 160)).logits.shape)"
    )
    assert shape.split() == ["1", "7", "5"]


def test_import_brings_little_besides_torch() -> None:
    """The packages that `import w2vbert` loads and `import torch` does not."""
    loaded = python(
        "import sys, torch\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "import w2vbert\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - before)"
    )
    third_party = set(loaded.split()) - set(sys.stdlib_module_names)
    assert third_party <= {"w2vbert", "safetensors", "numpy"}
