"""`scripts/bench receive|associations|deliver|end-to-end|predict|soak|audit [options]`."""

import argparse
import sys
import tempfile
from pathlib import Path

from scripts.benchmarks import associations, audit, deliver, end_to_end, predict, receive, soak
from scripts.benchmarks.report import Report
from scripts.benchmarks.senders import Failed

BENCHMARKS = {
    "receive": receive,
    "associations": associations,
    "deliver": deliver,
    "end-to-end": end_to_end,
    "predict": predict,
    "soak": soak,
    "audit": audit,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Compare the ratios of one run only.")
    commands = parser.add_subparsers(dest="what", required=True)
    for name, module in BENCHMARKS.items():
        module.add_options(commands.add_parser(name, description=module.__doc__))
    chosen = parser.parse_args()
    report = Report()
    try:
        with tempfile.TemporaryDirectory(prefix="hilum-bench-", dir=chosen.folder) as root:
            code: int = BENCHMARKS[chosen.what].run(chosen, Path(root), report)
    except (Failed, PermissionError) as e:
        print(f"bench: {e}", file=sys.stderr)
        return 3
    report.keep_as(chosen.json)
    return code


if __name__ == "__main__":
    sys.exit(main())
