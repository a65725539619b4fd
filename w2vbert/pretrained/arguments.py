"""Arguments of the published `from_pretrained` and `save_pretrained` that have no meaning here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from w2vbert.pretrained.hub import WITHOUT_EFFECT

# Each asks for something that there is not, unless its value is one of these.
_NOTHING: tuple[object, ...] = (None, False)
_ASKING = {
    "quantization_config": "quantized weights",
    "load_in_8bit": "quantized weights",
    "load_in_4bit": "quantized weights",
    "gguf_file": "GGUF files",
    "from_tf": "weights of TensorFlow",
    "from_flax": "weights of Flax",
    "tp_plan": "tensor parallelism",
    "tp_size": "tensor parallelism",
    "device_mesh": "tensor parallelism",
    "distributed_config": "tensor parallelism",
    "max_memory": "a model spread over devices",
    "offload_folder": "a model spread over devices",
    "offload_state_dict": "a model spread over devices",
    "offload_buffers": "a model spread over devices",
    "key_mapping": "renamed weights",
    "adapter_kwargs": "PEFT adapters by from_pretrained (peft.PeftModel.from_pretrained loads them)",
    "generation_config": "generation",
    "experts_implementation": "experts",
    "use_kernels": "kernels of the hub",
    "kernel_config": "kernels of the hub",
    "allow_all_kernels": "kernels of the hub",
    "code_revision": "code of the hub",
    "mirror": "mirrors of the hub",
    "distributed_checkpoint": "checkpoints of torch.distributed",
}


def without_meaning(arguments: dict[str, Any], method: str) -> dict[str, Any]:
    """The arguments that are left when those without a meaning are taken away.

    Raises:
        ValueError: one of them asks for something that there is not.
    """
    left = {}
    for name, value in arguments.items():
        if name in _ASKING:
            # AutoModel says where in the hub it would look for adapters, if there were some.
            looked = isinstance(value, Mapping) and value.keys() <= {"token", "revision"}
            if not looked and not any(value is nothing for nothing in _NOTHING):
                raise ValueError(f"{method}({name}=...): there is no support for {_ASKING[name]}")
        elif name not in WITHOUT_EFFECT:
            left[name] = value
    return left
