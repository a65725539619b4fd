"""Whole models with kernels, and where PyTorch's operators run although Triton is forced."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.w2vbert.kernels.interpreted.conftest import Both
from w2vbert import Wav2Vec2BertConfig, Wav2Vec2BertModel
from w2vbert.packing import Packed

LENGTHS = [30, 1, 12]


def tiny(**fields: object) -> Wav2Vec2BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = Wav2Vec2BertConfig(
        **{**sizes, "conv_depthwise_kernel_size": 5, "left_max_position_embeddings": 6, **fields}
    )
    return Wav2Vec2BertModel(config).eval()


def states(model: Wav2Vec2BertModel) -> Callable[[], Tensor]:
    torch.manual_seed(1)
    features = Packed.from_sequences([torch.randn(length, 160) for length in LENGTHS])
    return lambda: model.encode(features, num_valid=[29, 1, 12]).last_hidden_state.frames


@pytest.mark.parametrize("fields", [{}, {"add_adapter": True}])
def test_a_model(both: Both, fields: dict[str, object]) -> None:
    run = states(tiny(**fields))
    with torch.inference_mode():
        wanted, given = both(run)
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)
    assert not torch.equal(given, wanted)


@pytest.mark.parametrize("scheme", ["relative", "rotary", None])
def test_other_schemes_keep_their_attention(both: Both, scheme: str | None) -> None:
    model = tiny(position_embeddings_type=scheme)
    for layer in model.encoder.layers:
        layer.conv_module.register_module("pointwise_conv2", torch.nn.Linear(32, 32, bias=False))
        layer.conv_module.pointwise_conv2.weight.data.zero_()
    with torch.inference_mode():
        wanted, given = both(states(model))
    assert torch.equal(given, wanted)


def test_a_gradient_is_that_of_pytorch(both: Both) -> None:
    model = tiny()

    def gradient() -> Tensor:
        model.zero_grad()
        states(model)().square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    wanted, given = both(gradient)
    assert torch.equal(given, wanted)


def test_a_gradient_for_the_embedding_alone(both: Both) -> None:
    model = tiny().requires_grad_(False)
    embedding = model.encoder.layers[0].self_attn.distance_embedding.weight.requires_grad_()

    def gradient() -> Tensor:
        embedding.grad = None
        states(model)().square().sum().backward()
        assert embedding.grad is not None
        return embedding.grad

    # The convolution of the first layer comes after, so nothing there is a kernel's.
    wanted, given = both(gradient)
    assert torch.equal(given, wanted)


def test_without_a_gradient_kernels_run_in_training_too(both: Both) -> None:
    model = tiny(hidden_dropout=0.0, layerdrop=0.0, apply_spec_augment=False).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        wanted, given = both(states(model))
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)
    assert not torch.equal(given, wanted)


@pytest.mark.parametrize("holes", [torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 0, 1, 1]])])
def test_gaps_are_left_to_pytorch(both: Both, holes: Tensor) -> None:
    model, features = tiny(), torch.randn(1, 5, 160)
    with torch.inference_mode():
        wanted, given = both(lambda: model(features, attention_mask=holes).last_hidden_state)
    assert torch.equal(given, wanted)


def test_weights_are_shown_by_pytorch(both: Both) -> None:
    model, features = tiny(), torch.randn(1, 20, 160)
    with torch.inference_mode():
        wanted, given = both(lambda: model(features, output_attentions=True).attentions[0])
    assert torch.equal(given, wanted)


def test_hooks_hear_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2VBERT_BACKEND", "triton")
    model, heard = tiny(), []
    conv = model.encoder.layers[0].conv_module.depthwise_conv
    conv.register_forward_hook(lambda *_: heard.append(True))
    with torch.inference_mode():
        states(model)()
    assert heard == [True]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_graphs_are_those_of_pytorch(both: Both) -> None:
    model, features = tiny(), torch.randn(1, 9, 160)

    def traced() -> Tensor:
        model.config.return_dict = False
        return torch.jit.trace(model, (features,), check_trace=False)(features)[0]

    def exported() -> Tensor:
        model.config.return_dict = True
        return torch.export.export(model, (features,)).module()(features).last_hidden_state

    def compiled() -> Tensor:
        torch.compiler.reset()
        return torch.compile(model, backend="eager", fullgraph=True)(features).last_hidden_state

    with torch.no_grad():
        for make in (traced, exported, compiled):
            wanted, given = both(make)
            assert torch.equal(given, wanted)
