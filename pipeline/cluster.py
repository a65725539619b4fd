"""The Ray cluster of a job: an existing one, or a local one, and how the stages share its CPUs and GPUs."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from pipeline.errors import JobError
from pipeline.spec import JobSpec


@dataclass(frozen=True)
class Shares:
    """CPUs and GPUs of each stage. Fractions let all four stages fit two cores."""

    task_cpus: float
    featurize_cpus: float
    featurize_pool: ActorPoolStrategy
    annotate_cpus: float
    annotate_gpus: float
    annotate_pool: ActorPoolStrategy
    threads: int


def connect(address: str | None) -> None:
    """Joins the cluster named, the one that RAY_ADDRESS or this machine has, or starts one here."""
    if ray.is_initialized():
        return
    # Idle OpenMP threads that spin take the core from the stage beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    join = partial(ray.init, logging_level=logging.WARNING, log_to_driver=False)
    given = address or os.environ.get("RAY_ADDRESS")
    try:
        if given:
            join(address=given)
            return
        try:
            join(address="auto")
        except ConnectionError:
            join(address="local", num_cpus=max(2, os.cpu_count() or 1), include_dashboard=False)
    except Exception as problem:
        raise JobError(f"no Ray cluster at {given or 'this machine'}: {problem}") from problem


def share_out(spec: JobSpec) -> Shares:
    """Decides pool sizes from what the cluster has.

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
    small = cpus < 4
    if per_actor:
        annotate_cpus, threads = (0.5 if small else 1.0), 2
    else:
        node_cpus = min((node["Resources"]["CPU"] for node in _nodes()), default=1.0)
        threads = max(1, int(node_cpus) // (least if len(_nodes()) == 1 else 1))
        annotate_cpus = 0.5 if small else max(1.0, threads / 2)
    featurize_cpus = 0.5 if small else 1.0
    room = int((cpus - annotate_cpus * least - 0.5) / featurize_cpus)
    featurizers = max(1, min(room, spec.featurize_actors or room))
    return Shares(
        task_cpus=0.25,
        featurize_cpus=featurize_cpus,
        featurize_pool=ActorPoolStrategy(min_size=1, max_size=featurizers, initial_size=1),
        annotate_cpus=annotate_cpus,
        annotate_gpus=per_actor,
        annotate_pool=ActorPoolStrategy(size=least)
        if least == most
        else ActorPoolStrategy(min_size=least, max_size=most, initial_size=least),
        threads=threads,
    )


def _pool(asked: str, gpus: float, per_actor: float) -> tuple[int, int]:
    if asked == "auto":
        size = max(1, int(gpus / per_actor)) if per_actor else max(1, len(_nodes()))
        return size, size
    least, _, most = asked.partition(":")
    return int(least), int(most or least)


def _nodes() -> list[dict[str, Any]]:
    """Nodes that run stages: a head that offers no CPU is none of them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _most(resource: str) -> float:
    """What the cluster has of a resource, or what its autoscaler may grow it to."""
    here = float(ray.cluster_resources().get(resource, 0.0))
    limits = ray._private.state.state.get_max_resources_from_cluster_config() or {}
    return max(here, float(limits.get(resource, 0.0)))
