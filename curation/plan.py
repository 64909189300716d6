"""``plan``: what a run would do, what it needs, and what the cluster has, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curation.config import Curation, resolve_config
from curation.ingest.listing import list_sources
from curation.job import progress
from engine.executors import ClusterError, cluster_resources
from kit.weights import find, lookup


@dataclass(frozen=True)
class Plan:
    """``possible`` is false where the cluster can never give what the pools ask for at least."""

    text: str
    possible: bool


def describe(config: str, overrides: Sequence[str] = ()) -> Plan:
    """Check the configuration, the listing, the model files and the cluster; does no work and writes nothing.

    Raises:
        ConfigError, WeightsError, ListingError: what a run would stop at.
    """
    curation = resolve_config(config, overrides)
    lines = [f"root: {curation.config.root}"]
    sources = list_sources(curation.config.listing)
    lines.append(f"listing: {len(sources)} sources")
    lines += _todo(curation)
    lines += _models(curation)
    needs, possible = _resources(curation)
    return Plan("\n".join([*lines, *needs]), possible)


def _todo(curation: Curation) -> list[str]:
    if not curation.store.files("clips"):
        return ["nothing has been run under this root: every source is to do, clips follow from the probe"]
    lines = ["what is left of the last listing:"]
    for what, stages in progress(curation).items():
        for stage in stages:
            lines.append(f"  {what:8} {stage.stage:16} {stage.todo:>9} to do {stage.done:>9} done")
    return lines


def _models(curation: Curation) -> list[str]:
    lines = ["stages and models:"]
    for spec in (curation.source_spec, *curation.specs):
        instead = f", in place of {spec.fallback_for} (its models are missing)" if spec.fallback_for else ""
        lines.append(f"  {spec.name} {spec.fingerprint}{instead}")
        for name in spec.weight_hashes:
            path = find(name, spec.weights)
            lines.append(f"    {name}: {path.stat().st_size / 1e6:.1f} MB, {lookup(name).licence}, {path}")
    for rule in curation.unapplied:
        lines.append(f"  not applied, {rule.stage} does not run: {rule.reason} ({rule.score})")
    return lines


def _resources(curation: Curation) -> tuple[list[str], bool]:
    groups = curation.config.groups
    cpus = sum(group.pool.cpus * group.pool.min_actors for group in groups)
    gpus = sum(group.pool.gpus * group.pool.min_actors for group in groups)
    most_cpus = sum(group.pool.cpus * group.pool.max_actors for group in groups)
    most_gpus = sum(group.pool.gpus * group.pool.max_actors for group in groups)
    lines = [f"needs: {cpus:g} CPUs and {gpus:g} GPUs at least, {most_cpus:g} and {most_gpus:g} at most"]
    if curation.config.executor.kind == "local":
        return [*lines, "executor: local, in this process"], True
    try:
        total = cluster_resources(curation.config.executor)
    except ClusterError as error:
        return [*lines, f"cluster: {error}"], False
    lines.append(f"cluster: {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs")
    possible = total.get("CPU", 0) >= cpus and total.get("GPU", 0) >= gpus
    if not possible:
        lines.append(
            "the cluster is too small as it stands: give the groups smaller pools (--set groups.NAME.pool.cpus=…), "
            "or add workers (an autoscaling cluster may still grow into it)"
        )
    return lines, possible
