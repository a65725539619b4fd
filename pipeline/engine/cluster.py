"""The Ray cluster of a job: an existing one, or a local one, and how the stages share its CPUs and GPUs."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.data import ActorPoolStrategy
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import BrokenOffError, JobError
from pipeline.storage import StorageError

if TYPE_CHECKING:
    from pipeline.spec.parts import ClusterSpec, ComputeSpec

logger = logging.getLogger(__name__)

TASK_CPUS = 0.25  # of a task that reads, writes or sums up
_PATIENCE_S = 120.0  # with the answer of a node


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


def connect(address: str | None) -> None:
    """Joins the cluster named, the one of RAY_ADDRESS or of `ray start` on this machine, or starts one here.

    Never the one that another job started for itself ("auto" would), since it ends with that job.
    """
    if ray.is_initialized():
        return
    # Idle OpenMP threads that spin take the core from the stage beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Ray runs again what a lost node did; the errors of its own statistics actor would fill the screen.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # Else a cluster that starts waits for its first workers: for ever where one of them dies (ray#40131).
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    heard = ray_is_heard()
    if not heard:
        # What a job must know of it, the run says itself (`watched`, `task_errors`).
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.addFilter(lambda record: False)
        # Else the driver's half in C++ writes errors of healthy runs to standard error by itself (ray#53727).
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    join = partial(ray.init, logging_level=logging.INFO if heard else logging.ERROR, log_to_driver=heard)
    given = address or os.environ.get("RAY_ADDRESS")
    with _sigterm_kept():
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


def ray_is_heard() -> bool:
    """Whether Ray's own lines are to be seen; its log files have them all."""
    return logger.isEnabledFor(logging.DEBUG)


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Keeps the handler that the caller has: Ray's ends the cluster under a job that is still at work."""
    given = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(given) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, given)


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


def beside_the_driver() -> Any:
    """For actors that the run remembers by: they live as long as the driver's node does."""
    return _on(ray.get_runtime_context().get_node_id(), soft=True)


@contextlib.contextmanager
def task_errors() -> Iterator[None]:
    """What tasks and actors raise for a person, as they raised it: Ray hands on its text alone.

    Raises:
        JobError: an actor cannot start.
        BrokenOffError: storage does not take what is written, the lock is lost, or the cluster is gone.
    """
    try:
        yield
    except RayTaskError as problem:
        if isinstance(problem.cause, StorageError | JobError):
            said, _, _ = str(problem.cause).partition("\nFailed to apply")  # which Ray adds
            raise BrokenOffError(said.rstrip(".")) from problem
        raise
    except RayActorError as problem:
        _, raised, reason = str(problem).rpartition(f"{JobError.__name__}: ")
        if raised:
            raise JobError(reason.strip()) from problem
        raise
    except RayError as problem:
        raise BrokenOffError(f"the Ray cluster failed ({str(problem).splitlines()[0]})") from problem


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
    return f"the cluster has {has} on {_amount(len(_nodes()), 'node')}; {', '.join(parts)}: {reason}"


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
    per_actor = compute.num_gpus_per_actor if compute.num_gpus_per_actor is not None else float(gpus > 0)
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
        _check_gpus()
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
    share = 1.0 if may_grow else share_to_ask_for(used, _least("CPU"))
    resources = _featurizing(featurizers, featurize_cpus, share)
    strategy = ActorPoolStrategy(min_size=fewest, max_size=most)
    annotate = Pool(strategy, _thousandths(annotate_cpus * share), per_actor, threads)
    return replace(resources, annotate=annotate, one_pool=pools == 1)


def allocate_featurizers(compute: ClusterSpec) -> Resources:
    """Of a run without models: the CPUs are its featurizers'."""
    cpus = float(ray.cluster_resources().get("CPU", 0.0))
    each = _featurize_cpus(cpus)
    room = _room(cpus, each)
    featurizers = max(1, min(room, compute.featurize_actors or room))
    return _featurizing(featurizers, each, share_to_ask_for(each * featurizers, _least("CPU")))


def _featurizing(featurizers: int, cpus: float, share: float) -> Resources:
    """For so many featurizers, each of which uses these CPUs and asks for a share of them."""
    return Resources(
        readers=None if share == 1.0 else 2 * featurizers,  # else they would take what the actors leave
        featurize=Pool(ActorPoolStrategy(min_size=1, max_size=featurizers), _thousandths(cpus * share)),
    )


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
    threads = max(1, int(_least("CPU")) // (actors if len(_nodes()) == 1 else 1))
    return (0.5 if small else max(1.0, threads / 2)), threads


def _pool_size(asked: str, gpus: float, per_actor: float) -> tuple[int, int]:
    if asked == "auto":
        size = max(1, int(gpus / per_actor)) if per_actor else max(1, len(_nodes()))
        return size, size
    fewest, _, most = asked.partition(":")
    return int(fewest), int(most or fewest)


def _room_for_weights(gpus: float, actors: int) -> float:
    """Bytes that the weights of one model actor may take: half of its share of the device's memory, since
    activations and buffers need the other half."""
    if gpus:
        total: int = ray.get(ray.remote(num_gpus=gpus)(_gpu_memory).remote())
        return total * min(1.0, gpus) / 2
    on_a_node = -(-actors // max(1, len(_nodes())))
    return _least("memory") / on_a_node / 2


def _check_gpus() -> None:
    """Asks each node that offers GPUs whether PyTorch can use them. Nodes that come later are asked by the
    model actors that start there."""
    from pipeline.annotate.devices import cuda_problem  # late: tasks that read need no torch

    check: Any = ray.remote(num_cpus=0, max_calls=1)(cuda_problem)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    answers = [check.options(scheduling_strategy=_on(node["NodeID"])).remote() for node in nodes]
    ray.wait(answers, num_returns=len(answers), timeout=_PATIENCE_S)
    for node, answer in zip(nodes, answers, strict=True):
        with contextlib.suppress(RayError):  # too busy to say, or gone by now
            if problem := ray.get(answer, timeout=0):
                raise JobError(
                    f"model actors are to run on GPUs, but node {node['NodeManagerAddress']} cannot use "
                    f"its GPUs: {problem}. Fix that, or run on CPUs with --num-gpus-per-actor 0."
                )


def _on(node: str, *, soft: bool = False) -> Any:
    return NodeAffinitySchedulingStrategy(node, soft=soft)


def _gpu_memory() -> int:
    import torch

    return int(torch.cuda.mem_get_info()[1])


def _least(resource: str) -> float:
    """What the node has of it that has least; of a cluster without nodes yet nothing is known."""
    return min((float(node["Resources"].get(resource, 0.0)) for node in _nodes()), default=1.0)


def _nodes() -> list[dict[str, Any]]:
    """Nodes that run stages: a head that offers no CPU is none of them."""
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
