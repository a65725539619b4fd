"""Outputs go through what makes outputs again: collectives, mixed precision, pytrees, pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping

import pytest
import torch
import transformers
from accelerate.utils import convert_to_fp32, send_to_device
from torch.utils import _pytree as pytree
from transformers import modeling_outputs
from transformers.models.wav2vec2 import tokenization_wav2vec2

import w2vbert
from tests.dropin.models import clips, collate, twins
from w2vbert import outputs
from w2vbert.outputs import CausalLMOutput
from w2vbert.tokenizer import collapse


def made() -> CausalLMOutput:
    states = (torch.ones(2, 3), torch.zeros(2, 3))
    return CausalLMOutput(loss=torch.tensor(2.0), logits=torch.arange(6.0).view(2, 3), hidden_states=states)


@pytest.mark.parametrize(
    "again",
    [
        lambda output: type(output)(dict(output)),
        lambda output: type(output)(output.items()),
        lambda output: type(output)((name, output[name]) for name in output),  # as DataParallel gathers
        lambda output: type(output)(*output.to_tuple()),
        lambda output: pytree.tree_map(lambda tensor: tensor, output),
        copy.deepcopy,
        copy.copy,
        lambda output: pickle.loads(pickle.dumps(output)),
        convert_to_fp32,
        lambda output: send_to_device(output, "cpu"),
    ],
)
def test_an_output_is_made_again(again: object) -> None:
    output = again(made())  # type: ignore[operator]
    assert type(output) is CausalLMOutput
    assert list(output) == ["loss", "logits", "hidden_states"]
    assert output.loss == 2.0
    assert output.logits.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert isinstance(output.hidden_states, tuple)
    assert output.attentions is None


def test_half_precision_becomes_float_field_by_field() -> None:
    output = convert_to_fp32(pytree.tree_map(lambda tensor: tensor.bfloat16(), made()))
    assert output.loss.dtype == output.hidden_states[1].dtype == torch.float32


def test_pytree_leaves() -> None:
    leaves, spec = pytree.tree_flatten(made())
    assert [leaf.shape for leaf in leaves] == [(), (2, 3), (2, 3), (2, 3)]
    assert pytree.tree_unflatten(leaves, spec).hidden_states[0] is leaves[2]
    paths = [pytree.keystr(path) for path, _ in pytree.tree_flatten_with_path(made())[0]]
    assert paths == ["['loss']", "['logits']", "['hidden_states'][0]", "['hidden_states'][1]"]


@torch.no_grad()
def test_the_published_order_whatever_is_asked_for() -> None:
    ours, peer = twins(w2vbert.Wav2Vec2BertForCTC)
    peer.set_attn_implementation("eager")
    batch = collate(clips(3))
    for flags in (
        {},
        {"output_hidden_states": True},
        {"output_hidden_states": True, "output_attentions": True},
    ):
        mine, its = ours(**batch, **flags), peer(**batch, **flags)
        assert isinstance(mine, dict)
        assert isinstance(mine, Mapping)
        assert list(mine) == list(its)
        assert len(ours(**batch, **flags, return_dict=False)) == len(its.to_tuple()) == len(mine)
        assert torch.allclose(mine[0], its[0], atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        outputs.Wav2Vec2BaseModelOutput,
        outputs.CausalLMOutput,
        outputs.SequenceClassifierOutput,
        outputs.TokenClassifierOutput,
        outputs.XVectorOutput,
        collapse.Wav2Vec2CTCTokenizerOutput,
    ],
)
def test_passes_for_the_published_output_of_its_name(kind: type[outputs.ModelOutput]) -> None:
    module = tokenization_wav2vec2 if kind is collapse.Wav2Vec2CTCTokenizerOutput else modeling_outputs
    output = kind()
    assert isinstance(output, getattr(module, kind.__name__))
    assert isinstance(output, (kind, transformers.utils.ModelOutput))
    assert not isinstance(output, modeling_outputs.Seq2SeqLMOutput)
    assert type(output) is kind


def test_what_is_set_is_there_both_ways() -> None:
    output = CausalLMOutput(logits=torch.ones(1))
    output["loss"] = torch.tensor(1.0)
    assert list(output) == ["loss", "logits"]
    assert output.loss is output["loss"] is output[0]
    output.loss = None
    assert list(output) == ["logits"]
    with pytest.raises(TypeError, match="takes loss, logits, hidden_states, attentions"):
        CausalLMOutput(logit=torch.ones(1))
    with pytest.raises(AttributeError, match="no 'logit'; it has loss"):
        _ = output.logit
    assert issubclass(transformers.utils.ModelOutput, dict), "the peer's are too"
