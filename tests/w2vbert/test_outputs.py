"""Outputs read as attributes, tuples and mappings."""

from __future__ import annotations

import pytest
import torch

from w2vbert.outputs import CausalLMOutput


def test_output_is_tuple_and_mapping_of_what_is_set() -> None:
    logits, loss = torch.ones(2), torch.tensor(3.0)
    output = CausalLMOutput(logits=logits)
    assert output[0] is logits
    assert output["logits"] is output.logits is logits
    assert output.to_tuple() == (logits,)
    assert list(output.items()) == [("logits", logits)]
    assert output.loss is None
    assert "loss" not in output
    with pytest.raises(KeyError):
        output["loss"]
    with pytest.raises(IndexError):
        output[1]
    output.loss = loss
    assert output[:2] == (loss, logits)
    assert output.get("attentions") is None


def test_what_is_no_field_stays_beside_them() -> None:
    output = CausalLMOutput(logits=torch.zeros(1))
    output.note = "mine"
    assert (len(output), output.note) == (1, "mine")
    for change in (
        lambda: output.pop("logits"),
        lambda: output.update({}),
        lambda: output.__delitem__("logits"),
    ):
        with pytest.raises(TypeError, match="set one by one"):
            change()
