"""What a curation run is configured by, and how the configuration becomes groups of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from curation.catalogue import SOURCE, STAGES
from curation.ingest.cut import CutConfig
from curation.ingest.listing import ListingConfig
from curation.thresholds import Threshold, Thresholds
from engine.config import ExecutorConfig, GroupConfig
from engine.ledger import Ledger
from engine.rules import Gate
from engine.runner import RunSpec
from engine.specs import GroupSpec, StageSpec
from engine.stage import StageConfig
from kit.config import ConfigError, Place, Strict, load
from kit.weights import find, lookup, resolve
from unitalking_data.storage import Store

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


class CurationConfig(Strict):
    """A curation run.

    Attributes:
        root: folder or fsspec URL that everything is written to.
        listing: where the media is.
        cut: how shots become clips.
        source: the group that probes, hashes and splits each file.
        groups: the scorers, in cascade order.
        gates: scores that spare later stages their work.
        fallbacks: for a stage whose model files may be missing, the stage that may stand in, and its settings.
        thresholds: name of a file in ``configs/thresholds``, or a path.
        weights: explicit model files by registry name.
        executor: where the work runs.
        gallery: most clips that the report shows.
    """

    root: str
    listing: ListingConfig
    cut: CutConfig = CutConfig()
    source: GroupConfig
    groups: tuple[GroupConfig, ...]
    gates: tuple[Gate, ...] = ()
    fallbacks: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    thresholds: str
    weights: dict[str, str] = Field(default_factory=dict)
    executor: ExecutorConfig = ExecutorConfig()
    gallery: int = Field(200, ge=0)


@dataclass(frozen=True)
class Curation:
    """A configuration checked against the catalogue of scorers and the model files at hand.

    Attributes:
        sources, clips: what the engine runs over files and over clips.
        rules: the thresholds whose stage runs, in order; ``unapplied`` are the others.
    """

    config: CurationConfig
    sources: RunSpec
    clips: RunSpec
    thresholds: Thresholds

    @property
    def ledger(self) -> Ledger:
        """The score tables under the root, the same of both runs."""
        return self.clips.ledger

    @property
    def store(self) -> Store:
        """The root, where everything is written."""
        return self.ledger.store

    @property
    def specs(self) -> tuple[StageSpec, ...]:
        """The clip stages in order."""
        return tuple(spec for group in self.clips.groups for spec in group.stages)

    @property
    def source_spec(self) -> StageSpec:
        return self.sources.groups[0].stages[0]

    @cached_property
    def rules(self) -> tuple[Threshold, ...]:
        running = {spec.name for spec in self.specs}
        return tuple(rule for rule in self.thresholds.rules if rule.stage in running)

    @property
    def unapplied(self) -> tuple[Threshold, ...]:
        return tuple(rule for rule in self.thresholds.rules if rule not in self.rules)

    @property
    def fallbacks(self) -> dict[str, str]:
        """Stage that stands in, by the stage whose models are missing."""
        return {spec.fallback_for: spec.name for spec in self.specs if spec.fallback_for}


def resolve_config(path: str, overrides: Sequence[str] = ()) -> Curation:
    """Read and check a configuration completely, before any work.

    Raises:
        ConfigError: an unknown stage, setting, score column or threshold file.
        WeightsError: model files that are missing and have no declared fallback, all of them named.
    """
    config = load(path, CurationConfig, overrides)
    for name in config.weights:
        lookup(name)
    if set(config.source.stages) != {SOURCE}:
        raise ConfigError(f"source.stages: expected exactly {SOURCE!r}, found {sorted(config.source.stages)}")
    missing: list[str] = []
    groups = tuple(_group(group, config, missing) for group in config.groups)
    source = GroupSpec(config.source, (_spec(SOURCE, config.source.stages[SOURCE], config),))
    missing += _absent(source.stages[0])
    resolve(dict.fromkeys(missing), config.weights)
    names = [spec.name for group in groups for spec in group.stages]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"groups: stages configured twice: {', '.join(sorted(twice))}")
    thresholds = load(_thresholds_file(config.thresholds), Thresholds)
    _check_scores([rule for gate in config.gates for rule in gate.rules], "gates")
    _check_scores(thresholds.rules, f"thresholds ({config.thresholds})")
    for gate in config.gates:
        if unknown := set(gate.before) - set(STAGES):
            raise ConfigError(f"gates: no stages {sorted(unknown)}")
    ledger = Ledger(Store(config.root))
    return Curation(config, RunSpec(ledger, "source", (source,)), RunSpec(ledger, "clip", groups), thresholds)


def stage_settings(place: Place) -> type[StageConfig] | None:
    """Return the settings' model of the stage at ``place`` of a configuration; None where no stage is configured."""
    match place:
        case ("source", "stages", name) | ("groups", _, "stages", name) | ("fallbacks", _, name) if name in STAGES:
            return StageSpec(STAGES[name]).cls.Config
    return None


def models(path: str, overrides: Sequence[str] = ()) -> dict[str, bool]:
    """Registry names of the model files that a configuration may use, and whether it can do without.

    Those of a stage with a declared fallback are not necessary, those of the fallback are.
    """
    config = load(path, CurationConfig, overrides)
    necessary: dict[str, bool] = {}
    for group in (config.source, *config.groups):
        for name, settings in group.stages.items():
            substitutes = config.fallbacks.get(name, {})
            for stage, own in {name: settings, **substitutes}.items():
                spare = bool(substitutes) and stage == name
                for weight in _spec(stage, own, config).build().weights():
                    necessary[weight] = necessary.get(weight, False) or not spare
    return {name: needed for name, needed in necessary.items() if name not in config.weights}


def _group(group: GroupConfig, config: CurationConfig, missing: list[str]) -> GroupSpec:
    specs = []
    for name, settings in group.stages.items():
        spec = _spec(name, settings, config)
        if (absent := _absent(spec)) and name in config.fallbacks:
            ((substitute, substitute_settings),) = config.fallbacks[name].items()
            spec = _spec(substitute, substitute_settings, config, fallback_for=name)
            absent = _absent(spec)
        missing += absent
        specs.append(spec)
    return GroupSpec(group, tuple(specs), config.gates, "engine.opening:open_clip")


def _spec(
    name: str, settings: dict[str, Any] | None, config: CurationConfig, fallback_for: str | None = None
) -> StageSpec:
    if name not in STAGES:
        raise ConfigError(f"no stage named {name!r}; there are {', '.join(STAGES)}")
    spec = StageSpec(STAGES[name], settings or {}, {}, fallback_for)
    try:
        needed = spec.build().weights()
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"stage {name}: {problems}") from None
    # Only the files that this stage reads may enter its fingerprint.
    mine = {weight: config.weights[weight] for weight in needed if weight in config.weights}
    return StageSpec(STAGES[name], settings or {}, mine, fallback_for)


def _absent(spec: StageSpec) -> list[str]:
    return [name for name in spec.build().weights() if find(name, spec.weights) is None]


def _thresholds_file(name: str) -> Path:
    path = Path(name)
    return path if path.suffix else CONFIGS / "thresholds" / f"{name}.yaml"


def _check_scores(rules: Sequence[Any], where: str) -> None:
    for rule in rules:
        if rule.stage not in STAGES:
            raise ConfigError(f"{where}: {rule.score} names no stage; there are {', '.join(STAGES)}")
        columns = StageSpec(STAGES[rule.stage]).cls.values.names
        if rule.column not in columns:
            raise ConfigError(f"{where}: {rule.stage} has no column {rule.column!r}; it has {', '.join(columns)}")
