"""Joining a Ray cluster, an existing one or a local one; and what it raises."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator
from functools import partial

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.errors import BrokenOffError, JobError
from pipeline.storage import StorageError

logger = logging.getLogger(__name__)


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
    with _sigterm_kept(), contextlib.nullcontext() if heard else _nothing_on_stderr():
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


def join_named(address: str | None) -> None:
    """Joins the cluster that is named, here or by RAY_ADDRESS; starts none."""
    named = address or os.environ.get("RAY_ADDRESS")
    if named and named != "local":
        connect(named)


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
def _nothing_on_stderr() -> Iterator[None]:
    """Ray's half in C++ says there which level of its log it was given; failures are exceptions."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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
