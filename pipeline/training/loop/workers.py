"""The workers of a run on Ray Train, which places them, and starts them again when they die.

What a run is and where it goes on is not Ray's to know: it lies in the run's own checkpoints (`state`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayActorError, RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from pipeline.engine.cluster import beside_the_driver
from pipeline.errors import BrokenOffError, JobError
from pipeline.storage import Storage, path_of
from pipeline.storage.filesystems import arrow_filesystem
from pipeline.training.group import Group
from pipeline.training.loop.course import Outcome
from pipeline.training.spec.running import ClusterPart

Say = Callable[[str], None]
Tell = Callable[[str, Any], None]
"""What a worker tells the driver: a kind of news, and what is new."""
Work = Callable[[Group, Tell], Outcome]
"""What each worker does; only the leader tells."""
_EVERY_S = 0.5
_ENDED = "ended"


@dataclass(frozen=True)
class Workers:
    """How many workers a run has, and what each of them gets.

    Attributes:
        count: or the fewest and the most (elastic).
        cpus: of each; as many threads.
        max_failures: how often the group is started again.
    """

    count: int | tuple[int, int]
    cpus: int
    gpus: int = 0
    max_failures: int = 3

    @property
    def most(self) -> int:
        return self.count if isinstance(self.count, int) else self.count[1]


def workers_of(cluster: ClusterPart, max_failures: int) -> Workers:
    """What the cluster, which is joined, has for a run.

    Raises:
        JobError: more is asked for than there is.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(ray.cluster_resources().get("GPU", 0))
    each = cluster.num_gpus_per_worker if cluster.num_gpus_per_worker is not None else min(gpus, 1)
    low, _, high = cluster.num_workers.partition(":")
    least = max(gpus, 1) if low == "auto" else int(low)
    if each and least > gpus and not high:
        raise JobError(f"--num-workers {least}: the cluster has {gpus} GPUs. Ask for fewer, or start nodes.")
    most = int(high) if high else least
    cores = [int(node.get("CPU", 0)) for node in nodes]
    cpus = cluster.threads_per_worker or _most_cpus(cores, most)
    if (room := _places(cores, cpus)) < least:  # Ray Train would wait for more without a word
        raise JobError(
            f"--num-workers {least}: the cluster has room for {room} of {cpus} CPUs. Ask for fewer, or for "
            "a smaller --threads-per-worker, or start nodes."
        )
    return Workers((least, most) if high else least, cpus, each, max_failures)


def _places(cores: Sequence[int], cpus: int) -> int:
    """Workers of so many CPUs that nodes of these cores have room for."""
    return sum(held // cpus for held in cores)


def _most_cpus(cores: Sequence[int], workers: int) -> int:
    """What each of these workers may have."""
    fitting = (cpus for cpus in range(max(cores), 1, -1) if _places(cores, cpus) >= workers)
    return next(fitting, 1)


def run_on_workers(work: Work, workers: Workers, place: str, storage: Storage, show: Tell) -> Outcome:
    """Does the work on a group of workers.

    Args:
        place: where Ray Train keeps its own notes.
        show: called in the driver with what the leader tells, and with ("died", message) for each failure.

    Raises:
        JobError: what a worker raised for a person.
        BrokenOffError: workers died too often, or the cluster is gone.
    """
    board = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=beside_the_driver()).remote()
    trainer = TorchTrainer(
        _train,
        train_loop_config={"work": ray.put(work), "board": board, "threads": workers.cpus},
        torch_config=TorchConfig(backend="nccl" if workers.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=cast(int, workers.count),  # a pair is elastic
            use_gpu=bool(workers.gpus),
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=RunConfig(
            name="train",
            storage_path=path_of(place),
            storage_filesystem=arrow_filesystem(place, storage.options.s3_arguments(), storage.hosts),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            callbacks=cast(Any, [_Deaths(board)]),
        ),
    )
    ended: list[Outcome | JobError] = []

    def take(kind: str, news: Any) -> None:
        if kind == _ENDED:
            ended.append(news)
        else:
            show(kind, news)

    with _shown(board, take), _sigint_kept():
        try:
            trainer.fit()
        except WorkerGroupError as problem:
            rank, its = next(iter(problem.worker_failures.items()))
            failure = BrokenOffError(f"worker {rank} died again and again ({_reason(its)})")
        except ControllerError as problem:
            failure = BrokenOffError(f"the Ray cluster failed ({_reason(problem)})")
    if not ended:
        raise failure
    if isinstance(ended[0], JobError):
        raise ended[0]
    return ended[0]


def _train(config: dict[str, Any]) -> None:
    """Each worker."""
    torch.set_num_threads(config["threads"])
    group = Group.current(ray.train.torch.get_device())
    work: Work = ray.get(config["work"])
    board = config["board"]
    if ray.get(board.is_over.remote()):
        return

    def tell(kind: str, news: Any) -> None:
        board.put.remote(kind, news)

    try:
        ended = work(group, tell)
    except JobError as problem:  # this worker would have it again, and others may wait for it now
        ray.get(board.put.remote(_ENDED, problem))
        raise
    if group.leads:
        ray.get(board.put.remote(_ENDED, ended))


class _Board:
    """What the driver has not shown yet."""

    def __init__(self) -> None:
        self._news: list[tuple[str, Any]] = []
        self._over = False

    def put(self, kind: str, news: Any) -> None:
        self._news.append((kind, news))
        self._over |= kind == _ENDED

    def is_over(self) -> bool:
        return self._over

    def take(self) -> list[tuple[str, Any]]:
        news, self._news = self._news, []
        return news


class _Deaths(UserCallback):
    """Tells of workers that died, in a sentence."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        fell = {
            rank: raised for rank, raised in worker_exceptions.items() if not isinstance(raised, JobError)
        }
        # Where a process is gone, what the others raise is only that they miss it.
        gone = {rank: raised for rank, raised in fell.items() if isinstance(_cause(raised), RayActorError)}
        for rank, problem in (gone or fell).items():
            self._board.put.remote("died", f"worker {rank} died ({_reason(problem)})")


@contextmanager
def _shown(board: Any, show: Tell) -> Iterator[None]:
    """Shows what comes to the board until the block is over, and what is left then."""
    over = threading.Event()

    def look() -> None:
        with suppress(RayError):  # a cluster that is gone tells nothing more
            for kind, news in ray.get(board.take.remote()):
                show(kind, news)

    def keep_looking() -> None:
        while not over.wait(_EVERY_S):
            look()

    thread = threading.Thread(target=keep_looking, name="what workers tell", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


@contextmanager
def _sigint_kept() -> Iterator[None]:
    """Puts back the handler that the caller has: Ray Train's, which ends workers that are no more, stays."""
    given = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, given)


def _cause(problem: BaseException) -> BaseException:
    """What a worker that does not answer any more died of."""
    found: BaseException = getattr(problem, "health_check_failure", problem)
    return found


def _reason(problem: BaseException) -> str:
    """Without Ray's paragraphs."""
    cause = _cause(problem)
    first = next((line for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {first}"[:300]
