"""Run the demo: build a labelled corpus, curate it, and say how often the curation was right."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from curation.accuracy import accuracy_table, check_labels, read_labels
from curation.config import resolve_config
from curation.fetch import fetch_models
from curation.job import run
from curation.report.gather import gather, write_report
from kit.weights import fetch
from pipelines.demo_corpus import WEIGHTS, build

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "profiles" / "cpu.yaml"
_logger = logging.getLogger(__name__)


def demo(folder: Path, executor: str, overrides: list[str]) -> int:
    """Everything under ``folder``: ``corpus/`` with its labels, ``run/`` with scores, verdicts and the report."""
    clock = time.monotonic()

    def say(line: str) -> None:
        _logger.info(f"[{time.monotonic() - clock:5.0f} s] {line}")

    say("fetching the small models")
    fetch_models(str(CONFIG), overrides, say)
    for name in WEIGHTS:
        fetch(name)
    corpus = folder / "corpus"
    if not (corpus / "labels.tsv").exists():
        say("building the demo corpus: real clips, and talkers rendered here with one planted fault each")
        build(corpus)
    settings = [f"root={folder / 'run'}", f"listing.inputs=['{corpus}']", *executor_settings(executor), *overrides]
    curation = resolve_config(str(CONFIG), settings)
    say("curating it")
    books = run(curation, say)
    say("writing the report")
    content = gather(curation)
    page = write_report(curation, content)
    print("funnel:")
    for step in content.funnel:
        print(f"  {step.name:20} {step.count:5} {step.unit}")
    print()
    print("against the planted truths:")
    print(accuracy_table(check_labels(curation, read_labels(corpus / "labels.tsv"))))
    print()
    for account in books:
        print(account)
    for stage, substitute in curation.fallbacks.items():
        print(f"note: no model files for {stage}; {substitute} stood in for it")
    print(f"report: {page.resolve()}")
    return 0


def executor_settings(kind: str) -> list[str]:
    """``ray`` here is a Ray of this machine, started and stopped with the demo."""
    return [f"executor.kind={kind}", "executor.address=local"]
