"""``python -m curation``: run, select, report, plan, status."""

from __future__ import annotations

import argparse
import sys

from curation.config import Curation, resolve_config
from curation.fetching import fetch_models
from curation.ingest.listing import ListingError
from curation.job import AccountingError, accounts, decide, progress, recut, run
from curation.planning import describe
from curation.reporting import write_report
from engine.config import ConfigError
from engine.executors import ClusterError
from engine.guard import SetupError
from engine.weights import WeightsError

USER_ERRORS = (ConfigError, ListingError, WeightsError, ClusterError, SetupError, FileNotFoundError)

EXAMPLES = """examples:
  python -m curation run --config configs/profiles/cpu.yaml --set listing.inputs=[videos/] --set root=runs/mine
  python -m curation plan --config mine.yaml
  python -m curation select --config mine.yaml --set thresholds=stricter.yaml
  ray job submit --working-dir . -- python -m curation run --config mine.yaml
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m curation",
        description="Find the good talking portraits in a collection of videos, and say why the others are not.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {
        "run": "list, probe, cut, score, select and report; continues where an earlier run stopped",
        "select": "apply the thresholds again to the scores there are, in seconds, and report",
        "report": "write the report of the last selection again",
        "fetch": "download the model files that the configuration needs",
        "plan": "say what a run would do, what it needs and what the cluster has, without doing it",
        "status": "say how far a run has come",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--config", required=True, metavar="FILE", help="YAML configuration (configs/profiles/*.yaml)"
        )
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="change one setting, a.b=c",
        )
    options = parser.parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except AccountingError as error:
        print(f"error: the books do not balance, please report this: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(
            f"error: {error.strerror or error}{place}; what was finished is kept, run again to go on", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        print("stopped; run again to go on", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace) -> int:
    curation = resolve_config(options.config, options.overrides)
    for stage, substitute in curation.fallbacks.items():
        print(f"note: {stage} has no model files; {substitute} stands in for it", file=sys.stderr)
    books = run(curation, lambda line: print(line, file=sys.stderr, flush=True))
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


_COMMANDS = {"run": _run, "select": _select, "report": _report, "fetch": _fetch, "plan": _plan, "status": _status}

if __name__ == "__main__":
    sys.exit(main())
