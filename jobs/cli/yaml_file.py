"""A YAML file of settings. Its values are text, as from flags and the environment; fields say what it means.

So nothing becomes what YAML 1.1 takes it for: `1:4` no number in base 60, `off` no boolean, `2026-11-24` no
date. Only `null`, an empty value, and YAML's spelling of infinity are more than text.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import yaml

from jobs.cli.options import Path
from pipeline.errors import JobError
from pipeline.storage import without_credentials

_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_INFINITE = {f"{sign}.{name}" for sign in ("", "+", "-") for name in ("inf", "Inf", "INF")}


class _TextLoader(yaml.SafeLoader):
    pass


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag in _KEPT]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    value = str(loader.construct_scalar(node))
    return value.replace(".", "").lower() if node.style is None and value in _INFINITE else value


_TextLoader.add_constructor("tag:yaml.org,2002:str", _text)


def read_yaml(given: str) -> tuple[dict[str, Any], dict[Path, int]]:
    """The values, and the line of each, from 1.

    Raises:
        JobError: the file cannot be read, is no YAML, or gives a field twice.
    """
    file = without_credentials(given)
    try:
        loader = _TextLoader(File(given).read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines = dict(_lines(node, file)) if node is not None else {}
        loaded = None if node is None else loader.construct_document(node)
    except OSError as problem:
        raise JobError(f"--config {file}: {problem.strerror or problem}") from problem
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # a ValueError: no UTF-8
        # Where, and not what: the line may hold a secret.
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(f"--config {file} is not YAML{where}") from None
    if not isinstance(loaded, dict):
        found = "nothing" if loaded is None else type(loaded).__name__
        raise JobError(f"--config {file} must hold 'field: value' lines, not {found}")
    return loaded, lines


def _lines(node: yaml.Node, file: str, path: Path = ()) -> Iterator[tuple[Path, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            raise JobError(f"--config {file}: lines {seen[name]} and {line} both give '{name}'")
        seen[name] = line
        yield (*path, name), line
        if not path:  # no field is deeper
            yield from _lines(value, file, (name,))
