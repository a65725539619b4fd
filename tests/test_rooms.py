"""The plan of the house: small files in small folders, imports that run one way, Ray in one room."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT

FILES_IN_A_FOLDER = 8
LINES_OF_A_FILE = 400
LINES_OF_A_FUNCTION = 60
PARAMETERS = 6
# Signatures of the published family, which stay as they are.
PUBLISHED = re.compile(r"w2vbert/.*:(forward|__init__|__call__|pad|decode|from_pretrained)$")
ONLY_PUBLIC = (
    "map_batches_internal",
    "ray._private",
    "get_stats_summary",
    "checkpoint_manager_cls",
    "_internal",
)
# Each room may import itself and those before it.
ROOMS = (
    *("errors", "storage", "strict_json", "node_files", "html", "clip_names", "schema"),
    *("audio", "features", "metrics", "tasks", "corpus", "spec", "annotate", "table"),
    *("reports", "speakers", "export", "report", "engine", "run", "job", "training"),
)


def sources(*folders: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    return [file for file in files if not folders or file.parts[0] in folders]


def tree(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def module(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


MODULES = {module(file): file for file in sources("jobs", "pipeline", "w2vbert")}


def imports(file: Path, *, late: bool = False) -> Iterator[str]:
    """The modules of this project, and the packages, that a file imports; `late`: inside functions too."""

    def statements(node: ast.AST) -> Iterator[ast.stmt]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.stmt):
                yield child
            if late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from statements(child)

    for statement in statements(tree(file)):
        if isinstance(statement, ast.Import):
            yield from (alias.name for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            for alias in statement.names:
                inner = f"{statement.module}.{alias.name}"
                yield inner if inner in MODULES else statement.module


def test_folders_are_small() -> None:
    held: dict[Path, int] = defaultdict(int)
    for file in MODULES.values():
        if file.parts[0] != "jobs":
            held[file.parent] += 1
    assert {str(folder): count for folder, count in held.items() if count > FILES_IN_A_FOLDER} == {}


def test_files_are_short() -> None:
    lengths = {str(file): len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in sources()}
    assert {file: length for file, length in lengths.items() if length > LINES_OF_A_FILE} == {}


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A program of a GPU: it is given one pointer, stride or constant at a time."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def test_functions_are_short() -> None:
    """Lines of code: the docstring does not count."""
    long = {}
    for file in MODULES.values():
        for function in functions(file):
            first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0]
            lines = (function.end_lineno or 0) - first.lineno + 1
            if lines > LINES_OF_A_FUNCTION:
                long[f"{file}:{function.name}"] = lines
    assert long == {}


def test_functions_have_few_parameters() -> None:
    many = {}
    for file in MODULES.values():
        for function in functions(file):
            given = function.args
            names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if is_kernel(function):
                continue
            if count > PARAMETERS and not PUBLISHED.match(f"{file}:{function.name}"):
                many[f"{file}:{function.name}"] = count
    assert many == {}


def test_imports_have_no_circle() -> None:
    graph = {
        name: {target for target in imports(file) if target in MODULES} - {name}
        for name, file in MODULES.items()
    }
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for target in sorted(graph[name]):
                visit(target, [*path, name])
            finished.add(name)

    for name in graph:
        visit(name, [])


def test_packages_run_one_way() -> None:
    order = ("w2vbert", "pipeline", "jobs")
    for name, file in MODULES.items():
        for target in imports(file, late=True):
            top = target.partition(".")[0]
            if top in order:
                assert order.index(top) <= order.index(name.partition(".")[0]), f"{file} imports {target}"


@pytest.mark.slow
def test_rooms_of_the_pipeline_run_one_way() -> None:
    for name, file in MODULES.items():
        if not name.startswith("pipeline."):
            continue
        for target in imports(file, late=True):
            if target.startswith("pipeline."):
                mine, its = (one.split(".")[1] for one in (name, target))
                assert ROOMS.index(its) <= ROOMS.index(mine), f"{file} imports {target}"


def test_ray_is_known_in_one_room_and_where_jobs_meet_it() -> None:
    knowing = {
        str(file)
        for file in MODULES.values()
        if any(i.split(".")[0] == "ray" for i in imports(file, late=True))
    }
    assert {file for file in knowing if not file.startswith("pipeline/engine/")} <= {
        "pipeline/job.py",
        "pipeline/training/loop/workers.py",
    }


def test_only_public_parts_of_ray() -> None:
    for file in MODULES.values():
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in ONLY_PUBLIC:
            assert name not in text, f"{file}: {name}"


def test_uris_are_known_in_one_file() -> None:
    """Elsewhere `://` stands in texts that people read (an s3:// in a help text), never in a comparison."""
    for file in MODULES.values():
        if file.parts[:2] == ("pipeline", "storage") or file.parts[0] == "w2vbert":
            continue
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.strip() not in ("://", "s3://", "file://"), f"{file}:{node.lineno}"


@pytest.mark.slow
def test_what_readers_report_to_need_not_wait_for_torch() -> None:
    code = "import sys, pipeline.engine.run_state; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert {"torch", "w2vbert"}.isdisjoint(loaded.stdout.split())


def test_help_need_not_wait_for_torch() -> None:
    code = "import sys, jobs.cli, pipeline.spec, pipeline.tasks; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert {"torch", "ray", "w2vbert"}.isdisjoint(loaded.stdout.split())


def test_the_rooms_are_all_named() -> None:
    rooms = {name.split(".")[1] for name in MODULES if name.startswith("pipeline.")}
    assert rooms <= set(ROOMS)
    assert all(one != other for one, other in pairwise(ROOMS))
