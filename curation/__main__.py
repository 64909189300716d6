"""``python -m curation``: run, select, report, plan, status."""

from __future__ import annotations

import argparse
import logging
import sys

from curation.config import Curation, CurationConfig, resolve_config, stage_settings
from curation.fetch import fetch_models
from curation.job import accounts, decide, progress, recut, run
from curation.plan import describe
from curation.report.gather import write_report
from kit import cli
from kit.cli import Command, ConfigFile, Program

CONFIG = ConfigFile(CurationConfig, "configs/profiles/*.yaml", settings_of=stage_settings)
_logger = logging.getLogger("curation")


def main(arguments: list[str] | None = None) -> int:
    return cli.run(PROGRAM, arguments)


def _run(options: argparse.Namespace) -> int:
    curation = resolve_config(options.config, options.overrides)
    for stage, substitute in curation.fallbacks.items():
        _logger.info(f"note: {stage} has no model files; {substitute} stands in for it")
    books = run(curation, _logger.info)
    page = write_report(curation)
    for account in books:
        print(account)
    print(f"report: {page}")
    return 0 if not any(account.undecided for account in books) else 1


def _select(options: argparse.Namespace) -> int:
    curation = resolve_config(options.config, options.overrides)
    recut(curation)
    decide(curation)
    return _publish(curation)


def _report(options: argparse.Namespace) -> int:
    return _publish(resolve_config(options.config, options.overrides))


def _publish(curation: Curation) -> int:
    page = write_report(curation)
    for account in accounts(curation):
        print(account)
    print(f"report: {page}")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    fetch_models(options.config, options.overrides, lambda line: print(line, flush=True))
    return 0


def _plan(options: argparse.Namespace) -> int:
    plan = describe(options.config, options.overrides)
    print(plan.text)
    return 0 if plan.possible else 2


def _status(options: argparse.Namespace) -> int:
    curation = resolve_config(options.config, options.overrides)
    for what, stages in progress(curation).items():
        print(f"{what}:")
        for stage in stages:
            print(f"  {stage.stage:16} {stage.done:>9} done {stage.todo:>9} to do {stage.quarantined:>7} quarantined")
    return 0


PROGRAM = Program(
    "python -m curation",
    "Find the good talking portraits in a collection of videos, and say why the others are not.",
    {
        "run": Command(
            _run,
            "list, probe, cut, score, select and report; continues where an earlier run stopped",
            [
                "python -m curation --config configs/profiles/cpu.yaml --set listing.inputs=[videos/]",
                "python -m curation --config mine.yaml --set root=runs/mine --show-config",
                "ray job submit --working-dir . -- python -m curation --config mine.yaml --set executor.address=auto",
            ],
            config=CONFIG,
        ),
        "select": Command(
            _select,
            "apply the thresholds again to the scores there are, in seconds, and report",
            ["python -m curation select --config mine.yaml --set thresholds=stricter.yaml"],
            config=CONFIG,
        ),
        "report": Command(
            _report,
            "write the report of the last selection again",
            ["python -m curation report --config mine.yaml"],
            config=CONFIG,
        ),
        "fetch": Command(
            _fetch,
            "download the model files that the configuration needs",
            ["python -m curation fetch --config configs/profiles/cpu.yaml"],
            config=CONFIG,
        ),
        "plan": Command(
            _plan,
            "say what a run would do, what it needs and what the cluster has, without doing it",
            ["python -m curation plan --config mine.yaml"],
            config=CONFIG,
        ),
        "status": Command(
            _status, "say how far a run has come", ["python -m curation status --config mine.yaml"], config=CONFIG
        ),
    },
    default="run",
)

if __name__ == "__main__":
    sys.exit(main())
