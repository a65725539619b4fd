"""The annotations of a job, by name. `register` adds one of your own: see `base.Task` for what it is made of.

Only the driver looks into `TASKS`; the actors of a job get the tasks it asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.tasks import classify, diarize, embed, transcribe
from pipeline.tasks.base import Task

if TYPE_CHECKING:
    from w2vbert.config import Wav2Vec2BertConfig

# In the order of the flags and of the columns.
TASKS: dict[str, Task] = {
    task.name: task for task in (transcribe.TASK, classify.TASK, diarize.TASK, embed.TASK)
}


def register(task: Task) -> None:
    """Adds an annotation to the flags, specs and tables of the jobs that this process runs.

    Raises:
        ValueError: another task has its name or one of its columns.
    """
    for other in TASKS.values():
        if other.name == task.name:
            raise ValueError(f"there is a task {task.name} already")
        if taken := other.column_names & task.column_names:
            raise ValueError(f"{task.name}: the columns {', '.join(sorted(taken))} are those of {other.name}")
    TASKS[task.name] = task


def columns_of(
    tasks: Mapping[str, Task], options: Mapping[str, Any], configs: Mapping[str, Wav2Vec2BertConfig]
) -> dict[str, pa.DataType]:
    """The columns that checkpoints of these configurations fill, in the order of the tasks.

    Args:
        tasks, options: of the job, by task.
        configs: of some of them: a stage may hold only a part.
    """
    columns: dict[str, pa.DataType] = {}
    for name, task in tasks.items():
        if name in configs:
            columns |= task.columns(options[name], configs[name])
    return columns
