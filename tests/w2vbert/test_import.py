"""`import w2vbert` stands by itself: PyTorch, NumPy and safetensors, and nothing that the pipeline needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FOREIGN = (
    "ray",
    "pyarrow",
    "datasets",
    "transformers",
    "torchaudio",
    "soundfile",
    "pandas",
    "pydantic",
    "flashlight",
)

PUBLIC = (
    "SeamlessM4TFeatureExtractor",
    "Wav2Vec2BertConfig",
    "Wav2Vec2BertForAudioFrameClassification",
    "Wav2Vec2BertForCTC",
    "Wav2Vec2BertForSequenceClassification",
    "Wav2Vec2BertForXVector",
    "Wav2Vec2BertModel",
    "Wav2Vec2BertPreTrainedModel",
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


# What `import torch` does not load, what is public, every module, and a model at work.
IMPORT_ALL = (
    BLOCK
    + """
import importlib, json, pkgutil, torch
before = {name.partition(".")[0] for name in sys.modules}
import w2vbert
loaded = {name.partition(".")[0] for name in sys.modules} - before
public = {name: getattr(w2vbert, name).__name__ for name in w2vbert.__all__}
modules = [importlib.import_module(module.name).__name__
           for module in pkgutil.walk_packages(w2vbert.__path__, "w2vbert.")]
config = w2vbert.Wav2Vec2BertConfig(hidden_size=16, num_hidden_layers=1, vocab_size=5)
logits = w2vbert.Wav2Vec2BertForCTC(config).eval()(torch.zeros(1, 7, 160)).logits
print(json.dumps([sorted(loaded), public, modules, logits.shape]))
"""
)


def python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'transformers'"):
        python(BLOCK + "import transformers")


@pytest.mark.slow
def test_without_the_pipeline_s_packages() -> None:
    loaded, public, modules, shape = json.loads(python(IMPORT_ALL))
    assert set(loaded) - set(sys.stdlib_module_names) <= {"w2vbert", "safetensors", "numpy"}
    assert public == {name: name for name in PUBLIC}
    assert {"w2vbert.heads.ctc", "w2vbert.features.extractor", "w2vbert.tokenizer.tokenizer"} <= set(modules)
    assert shape == [1, 7, 5]
