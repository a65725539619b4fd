"""Shows an output table on one page: charts, audio, transcripts; it opens without a server or network.

python jobs/report.py --table s3://lake/transcripts/ --output report.html
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a checkout, installed or not

from jobs.cli import Tool, tool
from pipeline.report.spec import ReportSpec


def _load() -> Tool:
    from pipeline.report.job import format_summary, report

    return Tool(report, format_summary)


main = tool(ReportSpec, _load, program="jobs/report.py")

if __name__ == "__main__":
    raise SystemExit(main())
