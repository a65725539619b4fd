"""The nodes of a cluster: what they have, and what they answer about their devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.engine.cluster.joining import task_errors
from pipeline.errors import JobError

if TYPE_CHECKING:
    from pipeline.spec.parts import ComputeSpec

TASK_CPUS = 0.25  # of a task that reads, writes or sums up
# On CPUs with units for bfloat16 a layer 1024 wide is 2.5 to 3.3 times as fast in it
# (bench/results/encoder-cpu.md), one 96 wide was 5 times as slow; between them nobody measured.
_WIDE = 1024
_PATIENCE_S = 120.0  # with the answer of a node
Answer = TypeVar("Answer")


def model_device(compute: ComputeSpec) -> str:
    """What model actors run on, "cuda" or "cpu"; without a cluster, what they would run on here."""
    if ray.is_initialized():
        gpus = float(ray.cluster_resources().get("GPU", 0.0))
    else:
        from pipeline.annotate.devices import cuda_problem  # late: tasks that read need no torch

        gpus = float(cuda_problem() is None)
    return "cuda" if gpus_per_actor(compute, gpus) else "cpu"


def choose_dtype(device: str, width: int) -> tuple[str, str]:
    """What is the faster of float32 and bfloat16 wherever model actors run, and why.

    Args:
        device: "cpu" or "cuda".
        width: of the narrowest encoder.
    """
    from pipeline.annotate.devices import has_bfloat16

    if device == "cpu" and width < _WIDE:
        return "float32", f"for encoders {width} wide on CPUs"
    what = "GPUs" if device == "cuda" else "CPUs"
    if not ray.is_initialized():
        able = [has_bfloat16(device)]
    else:
        able = [found is True for _, found in _asked(_nodes_with(device), has_bfloat16, device)]
    if able and all(able):
        return "bfloat16", f"all {what} have units for it"
    return "float32", f"{'not all' if any(able) else 'no'} {what} are known to have units for bfloat16"


def on_a_model_device(device: str, work: Callable[[str], Answer]) -> Answer | None:
    """The answer of `work(device)` from where a model actor may run; None where none is there, or free, yet.

    Without a cluster, or on CPUs that are this machine's, it runs in this process.
    """
    here = ray.is_initialized() and ray.get_runtime_context().get_node_id()
    nodes = _nodes_with(device) if here else []
    if not here or (device == "cpu" and any(node["NodeID"] == here for node in nodes)):
        return work(device)
    if not nodes:
        return None
    task: Any = ray.remote(num_cpus=TASK_CPUS, num_gpus=float(device == "cuda"), max_calls=1)(_called)
    pending = task.remote(work, device)
    with task_errors():
        try:
            answer: Answer = ray.get(pending, timeout=_PATIENCE_S)
            return answer
        except GetTimeoutError:
            ray.cancel(pending)
            return None


def _called(work: Callable[[str], Answer], device: str) -> Answer:
    return work(device)


def check_gpus() -> None:
    """Asks each node that offers GPUs whether PyTorch can use them. Nodes that come later are asked by the
    model actors that start there."""
    from pipeline.annotate.devices import cuda_problem  # late: tasks that read need no torch

    for node, problem in _asked(_nodes_with("cuda"), cuda_problem):
        if problem:
            raise JobError(
                f"model actors are to run on GPUs, but node {node['NodeManagerAddress']} cannot use "
                f"its GPUs: {problem}. Fix that, or run on CPUs with --num-gpus-per-actor 0."
            )


def _asked(
    nodes: Sequence[dict[str, Any]], question: Callable[..., Answer], *about: Any
) -> list[tuple[dict[str, Any], Answer | None]]:
    """Each node with its answer; None of one that is too busy to say, or gone by now."""
    here = ray.get_runtime_context().get_node_id()
    task: Any = ray.remote(num_cpus=0, max_calls=1)(question)
    away = [node for node in nodes if node["NodeID"] != here or node["Resources"].get("GPU")]
    pending = {
        node["NodeID"]: task.options(scheduling_strategy=_on(node["NodeID"])).remote(*about) for node in away
    }
    if pending:
        ray.wait(list(pending.values()), num_returns=len(pending), timeout=_PATIENCE_S)
    answers: list[tuple[dict[str, Any], Answer | None]] = []
    for node in nodes:
        answer: Answer | None = None
        with contextlib.suppress(RayError):
            held = pending.get(node["NodeID"])
            answer = question(*about) if held is None else ray.get(held, timeout=0)
        answers.append((node, answer))
    return answers


def beside_the_driver() -> Any:
    """For actors that the run remembers by: they live as long as the driver's node does."""
    return _on(ray.get_runtime_context().get_node_id(), soft=True)


def _on(node: str, *, soft: bool = False) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=soft)


def gpus_per_actor(compute: ComputeSpec, gpus: float) -> float:
    """What was asked for, else one where the cluster has any."""
    return compute.num_gpus_per_actor if compute.num_gpus_per_actor is not None else float(gpus > 0)


def least(resource: str) -> float:
    """What the node has of it that has least; of a cluster without nodes yet nothing is known."""
    return min((float(node["Resources"].get(resource, 0.0)) for node in stage_nodes()), default=1.0)


def stage_nodes() -> list[dict[str, Any]]:
    """Nodes that run stages: a head that offers no CPU is none of them."""
    return _nodes_with("cpu")


def _nodes_with(device: str) -> list[dict[str, Any]]:
    resource = "GPU" if device == "cuda" else "CPU"
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource)]
