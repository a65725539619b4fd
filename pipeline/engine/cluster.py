"""The Ray cluster of a job: an existing one, or a local one, and how the stages share its CPUs and GPUs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from pipeline.errors import JobError
from pipeline.spec import JobSpec

_TASK_CPUS = 0.25  # of a task that reads or writes


@dataclass(frozen=True)
class Shares:
    """CPUs and GPUs of each stage. Fractions let all stages fit two cores.

    `one_pool`: each model actor holds all backbones of the job; else each backbone has a pool of its own.
    """

    task_cpus: float
    featurize_cpus: float
    featurize_pool: ActorPoolStrategy
    annotate_cpus: float
    annotate_gpus: float
    annotate_pool: ActorPoolStrategy
    threads: int
    one_pool: bool


def connect(address: str | None) -> None:
    """Joins the cluster named, the one of RAY_ADDRESS or of `ray start` on this machine, or starts one here.

    Never the one that another job started for itself ("auto" would), since it ends with that job.
    """
    if ray.is_initialized():
        return
    # Idle OpenMP threads that spin take the core from the stage beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    join = partial(ray.init, logging_level=logging.WARNING, log_to_driver=False)
    given = address or os.environ.get("RAY_ADDRESS")
    try:
        if given and given != "local":
            join(address=given)
            return
        try:
            with _token_of_its_own():
                join(address=given, num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False)
        except ValueError:  # there is a cluster, so the number of CPUs is not ours to say
            join()
    except Exception as problem:
        raise JobError(f"no Ray cluster at {given or 'this machine'}: {problem}") from problem


@contextlib.contextmanager
def _token_of_its_own() -> Iterator[None]:
    """Gives a cluster that starts inside the block a token that ends with this process.

    Ray would write one to ~/.ray/auth_token, and from then on every `ray start` of this home would demand it,
    while `ray job submit` and jobs with RAY_ADDRESS send none unless RAY_AUTH_MODE is set.
    """
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if not given:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        yield
    except BaseException:  # nothing started, and the cluster to join has another
        if not given:
            del os.environ["RAY_AUTH_TOKEN"]
        raise


def share_out(spec: JobSpec, weights: Sequence[int] = (0,)) -> Shares:
    """Decides pool sizes from what the cluster has.

    Args:
        weights: bytes of each backbone with its heads.

    Raises:
        JobError: more GPUs asked for than the cluster has or can grow to.
    """
    cpus, gpus = _most("CPU"), _most("GPU")
    per_actor = spec.num_gpus_per_actor if spec.num_gpus_per_actor is not None else float(gpus > 0)
    least, most = _pool(spec.num_actors, gpus, per_actor)
    if per_actor * least > gpus:
        raise JobError(
            f"num_actors × num_gpus_per_actor asks for {per_actor * least:g} GPUs, the cluster has {gpus:g}; "
            "lower --num-actors or --num-gpus-per-actor (0 runs on CPUs)."
        )
    pools = 1
    if len(weights) > 1 and sum(weights) > _room_for_weights(per_actor, least):
        pools = len(weights)
        if spec.num_actors == "auto":
            least = most = max(1, least // pools)
        if per_actor * least * pools > gpus and per_actor:
            raise JobError(
                f"the {pools} encoders do not fit one model actor's memory together, and pools of their own "
                f"take {per_actor * least * pools:g} GPUs where the cluster has {gpus:g}; annotate in runs"
                " of their own, or choose a smaller dtype."
            )
    small = cpus < 4
    featurize_cpus = 0.5 if small else 1.0
    if per_actor:
        annotate_cpus, threads = (0.5 if small else 1.0), 2
    else:
        node_cpus = min((node["Resources"]["CPU"] for node in _nodes()), default=1.0)
        threads = max(1, int(node_cpus) // (least if len(_nodes()) == 1 else 1))
        annotate_cpus = 0.5 if small else max(1.0, threads / 2)
        # However many actors are asked for, reading and featurizing must find a CPU beside them.
        rest = (cpus - 2 * _TASK_CPUS - featurize_cpus) / (most * pools)
        annotate_cpus = min(annotate_cpus, int(rest * 1000) / 1000)
    room = int((cpus - annotate_cpus * least * pools - 2 * _TASK_CPUS) / featurize_cpus + 1e-6)
    featurizers = max(1, min(room, spec.featurize_actors or room))
    return Shares(
        task_cpus=_TASK_CPUS,
        featurize_cpus=featurize_cpus,
        featurize_pool=ActorPoolStrategy(min_size=1, max_size=featurizers, initial_size=1),
        annotate_cpus=annotate_cpus,
        annotate_gpus=per_actor,
        annotate_pool=ActorPoolStrategy(size=least)
        if least == most
        else ActorPoolStrategy(min_size=least, max_size=most, initial_size=least),
        threads=threads,
        one_pool=pools == 1,
    )


def _pool(asked: str, gpus: float, per_actor: float) -> tuple[int, int]:
    if asked == "auto":
        size = max(1, int(gpus / per_actor)) if per_actor else max(1, len(_nodes()))
        return size, size
    least, _, most = asked.partition(":")
    return int(least), int(most or least)


def _room_for_weights(gpus: float, actors: int) -> float:
    """Bytes that the weights of one model actor may take: half of its share of the device's memory, since
    activations and buffers need the other half."""
    if gpus:
        total: int = ray.get(ray.remote(num_gpus=gpus)(_gpu_memory).remote())
        return total * min(1.0, gpus) / 2
    on_a_node = -(-actors // max(1, len(_nodes())))
    memory = min((float(node["Resources"].get("memory", 0.0)) for node in _nodes()), default=0.0)
    return memory / on_a_node / 2


def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])


def _nodes() -> list[dict[str, Any]]:
    """Nodes that run stages: a head that offers no CPU is none of them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _most(resource: str) -> float:
    """What the cluster has of a resource, or what its autoscaler may grow it to."""
    here = float(ray.cluster_resources().get(resource, 0.0))
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return max(here, float(limits.get(resource, 0.0)))
