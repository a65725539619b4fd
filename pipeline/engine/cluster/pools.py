"""How the stages of a job share the CPUs and GPUs of its cluster."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray

from pipeline.engine.cluster.nodes import TASK_CPUS, check_gpus, gpus_per_actor, least, stage_nodes
from pipeline.errors import JobError

if TYPE_CHECKING:
    from ray.data import ActorPoolStrategy

    from pipeline.spec.parts import ClusterSpec, ComputeSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pool:
    """Actors of one stage, and the resources of each. Fractions let all stages fit two cores."""

    strategy: ActorPoolStrategy
    cpus: float
    gpus: float = 0.0
    threads: int = 1

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"


@dataclass(frozen=True)
class Resources:
    """What each stage gets.

    Attributes:
        readers: most tasks that read at a time; None: as many as CPUs allow.
        annotate: None where a run has no models.
        one_pool: each model actor holds all backbones of the job; else each backbone has a pool of its own.
    """

    readers: int | None
    featurize: Pool
    annotate: Pool | None = None
    one_pool: bool = True


def shortage(resources: Resources) -> str:
    """What the cluster has, what actors and tasks take, and which of them find no room now."""
    total, free = ray.cluster_resources(), ray.available_resources()
    pools = {"a featurizer": resources.featurize, "a model actor": resources.annotate}
    takes = {"a task that reads or writes": {"CPU": TASK_CPUS}}
    takes |= {who: {"CPU": pool.cpus, "GPU": pool.gpus} for who, pool in pools.items() if pool is not None}
    known = [name for name in ("CPU", "GPU") if name in total or any(one.get(name) for one in takes.values())]
    has = " and ".join(f"{_amount(total.get(name, 0), name)} ({free.get(name, 0):g} free)" for name in known)
    parts = [
        f"{who} takes {' and '.join(_amount(much, name) for name, much in amounts.items() if much)}"
        for who, amounts in takes.items()
    ]
    waiting = [
        who
        for who, amounts in takes.items()
        if any(free.get(name, 0) < much for name, much in amounts.items())
    ]
    reason = "there is room for each, so the run is waiting for long work or slow storage"
    if waiting:
        reason = f"there is no room now for {' or '.join(waiting)} until a node comes or another job ends"
    return f"the cluster has {has} on {_amount(len(stage_nodes()), 'node')}; {', '.join(parts)}: {reason}"


def _amount(much: float, what: str) -> str:
    return f"{much:g} {what}{'' if much == 1 else 's'}"


def allocate(compute: ComputeSpec, weights: Sequence[int] = (0,)) -> Resources:
    """Decides pool sizes from what the cluster has.

    A range of model actors (`2:8`) means a cluster that grows: GPUs for the smaller number, and featurizers
    whose number is given, need not be there yet. No public interface of Ray tells how far an autoscaler goes.

    Args:
        weights: bytes of each backbone with its heads.

    Raises:
        JobError: more GPUs asked for than the cluster has, or GPUs that cannot be used.
    """
    may_grow = ":" in compute.num_actors
    cpus, gpus = (float(ray.cluster_resources().get(name, 0.0)) for name in ("CPU", "GPU"))
    per_actor = gpus_per_actor(compute, gpus)
    fewest, most = _pool_size(compute.num_actors, gpus, per_actor)
    if may_grow and per_actor * fewest > gpus:
        logger.warning(
            "%g GPUs are asked for, the cluster has %g: waiting for more", per_actor * fewest, gpus
        )
        gpus = per_actor * fewest
    if per_actor * fewest > gpus:
        raise JobError(
            f"num_actors × num_gpus_per_actor asks for {per_actor * fewest:g} GPUs, the cluster has "
            f"{gpus:g}; lower --num-actors or --num-gpus-per-actor (0 runs on CPUs), or, where the cluster "
            "grows, give --num-actors MIN:MAX."
        )
    if per_actor:
        check_gpus()
    pools = 1
    if len(weights) > 1 and sum(weights) > _room_for_weights(per_actor, fewest):
        pools = len(weights)
        if compute.num_actors == "auto":
            fewest = most = max(1, fewest // pools)
        if per_actor * fewest * pools > gpus and not may_grow:
            raise JobError(
                f"the {pools} encoders do not fit one model actor's memory together, and pools of their own "
                f"take {per_actor * fewest * pools:g} GPUs where the cluster has {gpus:g}; annotate in runs"
                " of their own, or choose a smaller dtype."
            )
    featurize_cpus = _featurize_cpus(cpus)
    annotate_cpus, threads = _annotate_cpus(cpus, per_actor, fewest)
    if not per_actor:
        # However many actors are asked for, reading and featurizing must find a CPU beside them.
        rest = (cpus - 2 * TASK_CPUS - featurize_cpus) / (most * pools)
        annotate_cpus = min(annotate_cpus, rest)
    room = _room(cpus - annotate_cpus * fewest * pools, featurize_cpus)
    asked = compute.featurize_actors or room
    featurizers = max(1, asked if may_grow else min(room, asked))
    used = annotate_cpus * most * pools + featurize_cpus * featurizers
    share = 1.0 if may_grow else share_to_ask_for(used, least("CPU"))
    resources = _featurizing(featurizers, featurize_cpus, share)
    strategy = _actors(fewest, most)
    annotate = Pool(strategy, _thousandths(annotate_cpus * share), per_actor, threads)
    return replace(resources, annotate=annotate, one_pool=pools == 1)


def allocate_featurizers(compute: ClusterSpec) -> Resources:
    """Of a run without models: the CPUs are its featurizers'."""
    cpus = float(ray.cluster_resources().get("CPU", 0.0))
    each = _featurize_cpus(cpus)
    room = _room(cpus, each)
    featurizers = max(1, min(room, compute.featurize_actors or room))
    return _featurizing(featurizers, each, share_to_ask_for(each * featurizers, least("CPU")))


def _featurizing(featurizers: int, cpus: float, share: float) -> Resources:
    """For so many featurizers, each of which uses these CPUs and asks for a share of them."""
    return Resources(
        readers=None if share == 1.0 else 2 * featurizers,  # else they would take what the actors leave
        featurize=Pool(_actors(1, featurizers), _thousandths(cpus * share)),
    )


def _actors(fewest: int, most: int) -> ActorPoolStrategy:
    from ray.data import ActorPoolStrategy  # late: the actor that counts needs no Ray Data

    return ActorPoolStrategy(min_size=fewest, max_size=most)


def _featurize_cpus(cpus: float) -> float:
    return 0.5 if cpus < 4 else 1.0


def _room(cpus: float, each: float) -> int:
    """How many actors there is room for beside tasks that read and write."""
    return int((cpus - 2 * TASK_CPUS) / each + 1e-6)


def share_to_ask_for(cpus: float, smallest: float) -> float:
    """The part of the CPUs they use that actors ask Ray for, so that they find room where a node is lost.

    Ray starts the actors of a lost node again on the nodes that are left, and takes no CPU from other actors
    for them: a stage without room would wait for ever. So all actors together ask for no more than the
    smallest node has, less what tasks that read and write take; but for no less than a quarter of what they
    use, so that Ray still fills many small or unequal nodes by their size. The number of actors stays.

    Args:
        cpus: that all actors use together.
        smallest: CPUs of the smallest node.
    """
    room = smallest - 2 * TASK_CPUS
    return 1.0 if cpus <= room + 1e-6 else max(0.25, room / cpus)


def _thousandths(cpus: float) -> float:
    """Rounded down, so that sums fit."""
    return int(cpus * 1000) / 1000


def _annotate_cpus(cpus: float, gpus_per_actor: float, actors: int) -> tuple[float, int]:
    """CPUs that a model actor asks for, and threads that it uses."""
    small = cpus < 4
    if gpus_per_actor:
        return (0.5 if small else 1.0), 2
    threads = max(1, int(least("CPU")) // (actors if len(stage_nodes()) == 1 else 1))
    return (0.5 if small else max(1.0, threads / 2)), threads


def _pool_size(asked: str, gpus: float, per_actor: float) -> tuple[int, int]:
    if asked == "auto":
        size = max(1, int(gpus / per_actor)) if per_actor else max(1, len(stage_nodes()))
        return size, size
    fewest, _, most = asked.partition(":")
    return int(fewest), int(most or fewest)


def _room_for_weights(gpus: float, actors: int) -> float:
    """Bytes that the weights of one model actor may take: half of its share of the device's memory, since
    activations and buffers need the other half."""
    if gpus:
        total: int = ray.get(ray.remote(num_gpus=gpus)(_gpu_memory).remote())
        return total * min(1.0, gpus) / 2
    on_a_node = -(-actors // max(1, len(stage_nodes())))
    return least("memory") / on_a_node / 2


def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])
