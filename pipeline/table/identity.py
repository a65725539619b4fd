"""What all runs of a table share: models and settings. Results of others never mix into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.errors import JobError

_REMEDY = "Write to another output, or --overwrite to delete this one and start again."


def require_same(
    output: str, held: Mapping[str, Any], identity: Mapping[str, Any], tasks: Iterable[str]
) -> None:
    """Refuses to mix results of other annotations, another model or other settings into this output.

    Args:
        held: of the table.
        identity: digests of the models, if known, and settings, by name.
        tasks: the annotations to write.

    Raises:
        JobError: something differs; the message says what.
    """
    asked, there = sorted(tasks), sorted(held["models"])
    if asked != there:
        raise JobError(
            f"--output {output} holds {', '.join(there)}; this job would write {', '.join(asked)}, "
            f"and all files of a table have the same columns.\n{_REMEDY}"
        )
    before, now = _by_setting(held), _by_setting(identity)
    differences = [
        f"{name}: it was {before.get(name)!r}, now {value!r}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if differences:
        raise JobError(
            f"--output {output} was made with another model or other settings:\n"
            + "\n".join(differences)
            + f"\n{_REMEDY}"
        )


def _by_setting(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity, each model with an entry of its own."""
    models = {f"model of {task}": digest for task, digest in identity.get("models", {}).items()}
    return {**{name: value for name, value in identity.items() if name != "models"}, **models}
