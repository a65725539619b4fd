"""The Ray cluster of a job: an existing one, or a local one, and how the stages share its CPUs and GPUs."""

from pipeline.engine.cluster.joining import connect, join_named, ray_is_heard, task_errors
from pipeline.engine.cluster.nodes import (
    TASK_CPUS,
    beside_the_driver,
    choose_dtype,
    model_device,
    on_a_model_device,
)
from pipeline.engine.cluster.pools import (
    Pool,
    Resources,
    allocate,
    allocate_featurizers,
    share_to_ask_for,
    shortage,
)

__all__ = [
    "TASK_CPUS",
    "Pool",
    "Resources",
    "allocate",
    "allocate_featurizers",
    "beside_the_driver",
    "choose_dtype",
    "connect",
    "join_named",
    "model_device",
    "on_a_model_device",
    "ray_is_heard",
    "share_to_ask_for",
    "shortage",
    "task_errors",
]
