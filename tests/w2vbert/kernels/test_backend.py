"""Which backend runs, and what is said where it cannot."""

from __future__ import annotations

import pytest
import torch

from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertModel
from w2vbert.kernels import BackendError, available, triton_runs

CPU = torch.device("cpu")


@pytest.fixture
def model() -> Wav2Vec2BertModel:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return Wav2Vec2BertModel(Wav2Vec2BertConfig(**sizes)).eval()


@pytest.mark.parametrize("switch", [None, "", "torch"])
def test_a_cpu_runs_pytorch(switch: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("W2VBERT_BACKEND", raising=False)
    if switch is not None:
        monkeypatch.setenv("W2VBERT_BACKEND", switch)
    assert not triton_runs(torch.zeros(3, 4))


def test_triton_forced_on_a_cpu_says_why_it_cannot(
    model: Wav2Vec2BertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not available(CPU)
    monkeypatch.setenv("W2VBERT_BACKEND", "triton")
    with torch.inference_mode(), pytest.raises(BackendError, match=r"W2VBERT_BACKEND=triton.* on cpu: "):
        model(torch.zeros(1, 5, 160))


def test_a_backend_that_there_is_not(model: Wav2Vec2BertModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2VBERT_BACKEND", "cuda")
    with torch.inference_mode(), pytest.raises(BackendError, match="is 'cuda'; it can be torch or triton"):
        model(torch.zeros(1, 5, 160))


def test_training_goes_on_where_triton_is_forced(
    model: Wav2Vec2BertModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2VBERT_BACKEND", "triton")
    model(torch.zeros(1, 5, 160)).last_hidden_state.sum().backward()
    assert model.encoder.layers[0].self_attn.linear_q.weight.grad is not None


def test_tensors_that_kernels_do_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2VBERT_BACKEND", "triton")
    assert not triton_runs(torch.zeros(2, 2, dtype=torch.float64))
    assert not triton_runs(torch.zeros(2, 2), torch.zeros(2, 2, device="meta"))
    assert not triton_runs(torch.zeros(2, 2, requires_grad=True))
