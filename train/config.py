"""Recipes: everything that decides a training run, strict and frozen; every checkpoint carries its own.

A recipe is a YAML file under ``configs/train/``. What the paper does not disclose is a field all the same, and the
file says beside it why it has its value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kit.config import Strict, differences
from model.config import ModelConfig
from model.tasks import TASKS
from unitalking_data.prompts import ATOMS

NULL_TEXT = "null"  # the empty prompt, among the forms
SPEED_ONLY = ("out", "parallel", "log", "checkpoint", "validation", "recovery", "estimate")
DATA_SPEED_ONLY = ("workers", "in_memory", "cache", "cache_gb")


class DataConfig(Strict):
    """What is read: a release's latents, as ``train.encode`` wrote them, or its clips, encoded while they are read."""

    release: str = Field(description="folder or fsspec URL")
    split: str = Field("train", description="split of the release to train on")
    latents: str | None = Field(None, description="name of the encoder under the release's `latents/`")
    encode: str | None = Field(None, description="in place of latents: a configuration of train.encode")
    durations_s: tuple[float, ...] = Field((), description="buckets by length; clips are cut to their bucket's")
    aspects: tuple[float, ...] = Field((), description="buckets by width over height")
    texts: dict[str, dict[str, float]] = Field(
        {"default": {"detailed": 1.0, "short": 1.0, "fused": 1.0}},
        description="share of each prompt variant, by task; `default` is for the tasks that are not named",
    )
    window: int = Field(16, ge=1, description="shards that the shuffle mixes")
    workers: int = Field(2, ge=0, description="dataloader workers of each rank")
    in_memory: bool = Field(False, description="keep what has been read; for worlds that fit")
    cache: str | None = Field(None, description="folder for shards of a remote release")
    cache_gb: float = Field(500.0, gt=0, description="most that the cache folder may hold")

    @model_validator(mode="after")
    def _one_source(self) -> DataConfig:
        if (self.latents is None) == (self.encode is None):
            raise ValueError("give either latents or encode")
        return self

    @field_validator("texts")
    @classmethod
    def _texts(cls, texts: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for task, shares in texts.items():
            if task != "default" and task not in TASKS:
                raise ValueError(f"{task!r} is no task; there are default, {', '.join(TASKS)}")
            if unknown := sorted(shares.keys() - {*ATOMS, NULL_TEXT}):
                raise ValueError(f"{unknown[0]!r} is no form of prompt; there are {', '.join([*ATOMS, NULL_TEXT])}")
            if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
                raise ValueError(f"the shares of {task} must be positive")
        return texts


class NoiseConfig(Strict):
    """How noise levels are drawn."""

    shift: float = Field(5.0, gt=0, description="sigma = shift u / (1 + (shift - 1) u)")
    level: Literal["uniform", "logit_normal"] = Field("uniform", description="distribution of u")
    independent: bool = Field(False, description="a level for each stream instead of one for the sample")


class DropConfig(Strict):
    """Probabilities with which a sample loses conditions, so that guidance has something to guide away from. Tasks
    without a reference lose their text with ``text + both``."""

    text: float = Field(0.1, ge=0, le=1, description="probability of losing the text alone")
    reference: float = Field(0.1, ge=0, le=1, description="probability of losing the reference voice alone")
    both: float = Field(0.1, ge=0, le=1, description="probability of losing text and reference voice")

    @model_validator(mode="after")
    def _sum(self) -> DropConfig:
        if self.text + self.reference + self.both > 1:
            raise ValueError("text, reference and both are exclusive; together they must not pass 1")
        return self


class OptimizerConfig(Strict):
    """AdamW and its learning rate."""

    lr: float = Field(1e-5, gt=0, description="learning rate after the warm-up")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of Adam's two moments")
    eps: float = Field(1e-8, gt=0, description="added to Adam's denominator")
    weight_decay: float = Field(0.01, ge=0, description="decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="largest norm of the whole gradient")
    warmup: int = Field(1000, ge=0, description="steps of linear warm-up")
    decay: Literal["constant", "cosine"] = Field("constant", description="course of the rate after the warm-up")
    decay_from: float = Field(0.0, ge=0, lt=1, description="share of the steps after which cosine decay to 0 begins")


class LoraConfig(Strict):
    """Low-rank updates of linear layers; everything else is frozen."""

    rank: int = Field(16, ge=1, description="of the updates")
    alpha: float = Field(16.0, gt=0, description="the update is alpha / rank times B A")
    targets: tuple[str, ...] = Field(
        ("*.self_attn.[qkvo]", "*.cross_attn.[qkvo]", "*.ffn.[02]"), description="names of linear layers, with globs"
    )


class InitConfig(Strict):
    """Files, folders and registered models that streams start from, see
    :func:`model.weights.transformer.start_model`; the rest of the weights is drawn, as :mod:`model.init` says."""

    video: str | None = Field(None, description="the video stream: Wan2.2-TI2V-5B, or an export of ours")
    audio: str | None = Field(
        None, description="the audio stream: Wan (its embeddings of text and time), Ovi, or an export of stage 1"
    )


class ParallelConfig(Strict):
    """How the work is spread; changes no number beyond rounding."""

    device: str = Field("auto", description="auto takes a GPU where there is one")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the computation; master weights are float32"
    )
    micro_batch: int | None = Field(
        None, ge=1, description="most samples that a rank computes at once; null: its share"
    )
    replicate: int = Field(1, ge=1, description="HSDP: groups that hold a whole copy each, usually nodes")
    sequence: int = Field(1, ge=1, description="ranks that share a sample, split by tokens and heads (Ulysses)")
    checkpointing: Literal["none", "selective", "full"] = Field(
        "none", description="recompute blocks in the backward pass; selective keeps what attention made"
    )
    compile: bool = Field(False, description="torch.compile every block")
    threads: int | None = Field(None, ge=1, description="CPU threads of each rank")


class EmaConfig(Strict):
    """A moving average of the weights, which is what samples and exports use."""

    decay: float = Field(0.9999, gt=0, lt=1, description="share of the average that a step keeps")
    warmup: bool = Field(True, description="decay is at most (1 + step) / (10 + step)")


class CheckpointConfig(Strict):
    """How often checkpoints are written, and which stay."""

    every: int = Field(1000, ge=1, description="steps from one checkpoint to the next")
    keep_last: int = Field(3, ge=1, description="newest checkpoints that stay")
    keep_best: int = Field(1, ge=0, description="checkpoints of lowest validation loss that stay besides")


class LogConfig(Strict):
    """What a run tells, and how often."""

    every: int = Field(10, ge=1, description="steps between lines")
    sigma_bins: int = Field(5, ge=1, description="bands of the noise level whose losses are told apart")
    tensorboard: bool = Field(True, description="write `tensorboard/` beside `metrics.jsonl`")
    wandb: str | None = Field(None, description="project on Weights & Biases; null: none")
    peak_tflops: float | None = Field(None, gt=0, description="peak of one device, for MFU; null: known GPUs only")


class ValidationConfig(Strict):
    """Losses at fixed noise levels on fixed clips, and samples."""

    every: int = Field(2000, ge=1, description="steps from one validation to the next")
    split: str = Field("val", description="split of the release to measure on")
    clips: int = Field(64, ge=1, description="how many of its first clips")
    quantiles: tuple[float, ...] = Field((0.1, 0.3, 0.5, 0.7, 0.9), description="of u, before the shift")
    sample: str | None = Field(None, description="a configuration of the sampler, to write mp4s of `requests`")
    requests: str | None = Field(None, description="JSONL of the sampler's requests")

    @model_validator(mode="after")
    def _pair(self) -> ValidationConfig:
        if (self.sample is None) != (self.requests is None):
            raise ValueError("sample and requests need each other")
        if not self.quantiles or not all(0 < q < 1 for q in self.quantiles):
            raise ValueError("quantiles must lie between 0 and 1")
        return self


class RecoveryConfig(Strict):
    """How a run recovers from a broken step: the step is not applied, and the run goes back to its last checkpoint and
    skips it."""

    spike: float = Field(10.0, gt=1, description="gradient norm, in medians of the last `window` steps")
    window: int = Field(100, ge=10, description="steps whose median norm is the measure")
    rollbacks: int = Field(5, ge=0, description="how many, before the run gives up")
    stall_s: float = Field(1800.0, gt=0, description="seconds without progress after which a rank is reported")


class EstimateConfig(Strict):
    """What ``--dry-run`` assumes of data and machines."""

    video: tuple[int, int, int] | None = Field(None, description="latent frames, rows and columns of a clip")
    audio: int = Field(ge=1, description="latents of a clip")
    mfu: float = Field(0.4, gt=0, le=1, description="model FLOPs utilisation that is expected")
    peak_tflops: float = Field(989.0, gt=0, description="peak of one GPU")
    memory_gb: float = Field(80.0, gt=0, description="memory of one GPU")
    gpu_hour: float | None = Field(None, gt=0, description="price of a GPU hour, in whatever currency")


class Recipe(Strict):
    """A training run.

    Attributes:
        stage: 1 trains the audio half on speech, 2 both streams.
        seed: of data order, noise and dropped conditions.
        steps: optimizer steps of the whole run.
        trained: which parameters learn, a preset of :mod:`train.trained`.
        shares: each task's share of the optimizer steps; they are scaled to sum to 1.
        batch: samples of an optimizer step over all ranks.
        streams_apart: ablation: each stream attends to itself alone.
    """

    stage: Literal[1, 2]
    out: str = Field(description="folder of checkpoints, logs and samples")
    model: ModelConfig
    data: DataConfig
    seed: int = 0
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    shares: dict[str, float]
    trained: Literal["all", "audio_all", "paper"]
    init: InitConfig = InitConfig()
    noise: NoiseConfig = NoiseConfig()
    drop: DropConfig = DropConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig | None = None
    lora: LoraConfig | None = None
    streams_apart: bool = False
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    validation: ValidationConfig | None = None
    recovery: RecoveryConfig = RecoveryConfig()
    estimate: EstimateConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name, share in self.shares.items():
            if name not in TASKS:
                raise ValueError(f"shares: {name!r} is no task; there are {', '.join(TASKS)}")
            if share < 0:
                raise ValueError(f"shares: {name} is negative")
            if self.stage == 1 and "video" in TASKS[name].streams:
                raise ValueError(f"shares: {name} needs video, and stage 1 has the audio half alone")
        if sum(self.shares.values()) <= 0:
            raise ValueError("shares: at least one task must have one")
        if (self.stage == 2) != (self.trained == "all"):
            raise ValueError(f"trained: {self.trained} is not for stage {self.stage}; see train/trained.py")
        if self.lora and (not self.init.audio or self.init.video not in (None, self.init.audio)):
            raise ValueError("lora: fine-tunes one model; name its export as init.audio alone")
        if self.lora and self.ema:
            raise ValueError("lora: has no moving average")
        return self

    @property
    def streams(self) -> tuple[Literal["video", "audio"], ...]:
        return ("audio",) if self.stage == 1 else ("video", "audio")

    @property
    def tasks(self) -> dict[str, float]:
        """Tasks with a share, scaled to sum to 1."""
        total = sum(self.shares.values())
        return {name: share / total for name, share in self.shares.items() if share}

    def content(self) -> dict[str, Any]:
        """As JSON; :meth:`model_validate` reads it back."""
        return self.model_dump(mode="json")

    def decisive(self) -> dict[str, Any]:
        """What a resumed run must share with the run it continues: all but where, how fast and how watched it runs."""
        return _decisive(self.content())

    def changes(self, content: Mapping[str, Any]) -> list[str]:
        """Fields that keep a run of this recipe from continuing one whose :meth:`content` is given, with both values.

        The content may be of an older version: what that did not have, or this has no more, is a change as well.
        """
        return differences(_decisive(content), self.decisive())


def _decisive(content: Mapping[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in content["data"].items() if name not in DATA_SPEED_ONLY}
    return {name: value for name, value in content.items() if name not in SPEED_ONLY} | {"data": data}
