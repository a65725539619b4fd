"""The installed command, `w2vbert`: the jobs by name. It imports only the one that is asked for.

w2vbert transcribe corpus/*.flac --output table --model ./ctc
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

JOBS = {
    "transcribe": "text, words with times and confidences",
    "classify": "the best labels of each clip, with scores",
    "diarize": "who speaks when",
    "embed": "an x-vector of each clip",
    "annotate": "any of these in one run",
    "finetune": "better checkpoints from labelled recordings",
    "speakers": "speakers of a corpus by its x-vectors; verification trials",
    "report": "a table on one page, to look at and to listen to",
    "export": "a table as files that other tools read",
}
SHELLS = ("bash", "zsh", "fish", "tcsh")
_HELP = "\n".join(
    [
        "usage: w2vbert COMMAND [options]",
        "",
        "Annotates speech corpora with Wav2Vec2-BERT: audio shards in, one Parquet row per clip out.",
        "",
        *(f"  {name:<12}{about}" for name, about in JOBS.items()),
        f"  {'completion':<12}a script by which a shell completes all this: {', '.join(SHELLS)}",
        "",
        "w2vbert COMMAND -h shows the most used options, --help all of them; --version the version.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the job; 2: there is no such command."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    try:
        if name in JOBS:
            return int(import_module(f"jobs.{name}").main(rest, program=f"w2vbert {name}"))
        if name in ("-h", "--help", "help"):
            print(_HELP)
            return 0
        if name == "--version":
            from pipeline import package_version

            print(f"w2vbert {package_version('w2vbert')}")
            return 0
        if name == "completion" and len(rest) == 1 and rest[0] in SHELLS:
            from jobs.cli.completion import print_script

            print_script(rest[0])
            return 0
    except KeyboardInterrupt:  # while packages were imported
        print(f"w2vbert {name}: stopped", file=sys.stderr)
        return 130
    print(_mistake(name), file=sys.stderr)
    return 2


def _mistake(name: str) -> str:
    if not name:
        return _HELP
    if name == "completion":
        return f"w2vbert completion: name a shell: {', '.join(SHELLS)}"
    close = difflib.get_close_matches(name, [*JOBS, "completion"], n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"w2vbert: there is no command '{name}'{hint}\nsee: w2vbert --help"


if __name__ == "__main__":
    raise SystemExit(main())
