"""The installed command: the same jobs by name, with manners."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import shtab

from jobs.__main__ import JOBS, SHELLS, main
from jobs.cli.declarations import declarations
from pipeline import package_version
from tests.conftest import ROOT


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_command_is_installed_by_its_name() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["scripts"] == {"w2vbert": "jobs.__main__:main"}


def test_each_file_of_jobs_is_a_command() -> None:
    files = {file.stem for file in (ROOT / "jobs").glob("*.py")} - {"__init__", "__main__"}
    assert set(JOBS) == files == set(declarations())


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in (*JOBS, "completion"))
    assert len(said.splitlines()) <= 25
    assert main([]) == 2
    assert capsys.readouterr().err == said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    with pytest.raises(SystemExit) as caught:
        main(["embed", "--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"w2vbert {package_version('w2vbert')}\n" * 2


@pytest.mark.parametrize("name", list(JOBS))
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_short_help_is_short(
    name: str, columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as caught:
        main([name, "-h"])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert 12 < len(lines) <= 25
    assert lines[0].startswith(f"usage: w2vbert {name} [")
    assert all(len(line) <= max(60, int(columns)) for line in lines[:-1])
    required = [f"--{field}" for field in ("output", "format") if f"--{field} " in "".join(lines[:3])]
    assert all(any(line.startswith(f"  {flag}") for line in lines) for flag in required)


def test_the_short_help_has_what_the_job_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    for name, flags in (
        ("transcribe", ["--input", "--model", "--language-model", "--nbest", "--align", "--plan"]),
        ("annotate", ["--transcribe", "--classify", "--diarize", "--embed", "--report"]),
        ("finetune", ["--train", "--task", "--model", "--output"]),
    ):
        with pytest.raises(SystemExit):
            main([name, "-h"])
        said = capsys.readouterr().out
        assert [flag for flag in flags if f"\n  {flag} " not in said] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["transcrib"], "w2vbert: there is no command 'transcrib'; did you mean 'transcribe'?"),
        (["--verison"], "w2vbert: there is no command '--verison'"),
        (["completion"], "w2vbert completion: name a shell: bash, zsh, fish, tcsh"),
    ],
)
def test_no_such_command(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[0] == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["transcribe", "--ouptut", "x"], "unknown argument --ouptut; did you mean '--output'?"),
        (["transcribe", "--output"], "--output needs a value"),
        (["transcribe", "--overwrite=1"], "--overwrite takes no value"),
        (["export", "table", "other", "--format", "srt"], "unexpected argument other"),
    ],
)
def test_a_mistake_is_told_in_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    name = f"w2vbert {arguments[0]}"
    assert capsys.readouterr().err == f"{name}: {said}\nsee: {name} --help\n"


def test_a_wrong_value_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "a.wav", "--output", "o", "--model", "m", "--dtype", "float23"]) == 2
    assert capsys.readouterr().err == (
        "w2vbert embed: dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16'; "
        "did you mean 'float32'?\n"
        "  see: w2vbert embed --help\n"
    )


def test_help_and_mistakes_wait_for_nothing() -> None:
    script = (
        "import sys\nfrom jobs.__main__ import JOBS, main\n"
        "for name in JOBS:\n"
        "    for flag in ('-h', '--help', '--version', '--no-such-flag'):\n"
        "        try: main([name, flag])\n"
        "        except SystemExit: pass\n"
        "print({'torch', 'ray', 'w2vbert', 'scipy', 'duckdb', 'rich', 'shtab', 'datasets'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"


def test_it_runs_from_any_folder(tmp_path: Path) -> None:
    """As a file of jobs/ does."""
    ran = subprocess.run(
        [sys.executable, str(ROOT / "jobs/export.py"), "nowhere", "--format", "srt", "--output", "o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("jobs/export.py: ")
    assert "nowhere" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_shells_that_are_offered_are_those_that_there_are() -> None:
    assert set(SHELLS) <= set(shtab.SUPPORTED_SHELLS)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["w2vbert", "tran"], {"transcribe"}),
        (["w2vbert", "transcribe", "--token"], {"--token-budget"}),
        (["w2vbert", "transcribe", "--dtype", "bf"], {"bfloat16"}),
        (["w2vbert", "export", "--format", "s"], {"srt"}),
        (["w2vbert", "diarize", "--model", "RE"], {"README.md"}),
        (["w2vbert", "annotate", "pypr"], {"pyproject.toml"}),
        (["w2vbert", "completion", "zs"], {"zsh"}),
    ],
)
def test_bash_completes(completion: Path, words: list[str], found: set[str]) -> None:
    line = " ".join(words)
    script = (
        f"source {completion}\nCOMP_WORDS=({line})\nCOMP_CWORD={len(words) - 1}\n"
        f"COMP_LINE='{line}'\nCOMP_POINT={len(line)}\n"
        "$(complete -p w2vbert | sed -E 's/.* -F (\\S+) .*/\\1/') w2vbert\nprintf '%s\\n' \"${COMPREPLY[@]}\""
    )
    ran = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) == found


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shell") / "w2vbert.bash"
    ran = run("completion", "bash")
    assert (ran.returncode, ran.stderr) == (0, "")
    file.write_text(ran.stdout)
    return file


@pytest.mark.parametrize("arguments", ["transcribe --help", "finetune --json-schema", "completion bash"])
def test_a_reader_that_leaves_is_no_failure(arguments: str) -> None:
    script = f"set -o pipefail; '{sys.executable}' -m jobs {arguments} | true"
    ran = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
