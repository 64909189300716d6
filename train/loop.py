"""The training loop of all recipes.

A step is a function of (state, batch, step): its task, noise levels, noise and dropped conditions are keyed by its
number, its batch by the loader's position. What a checkpoint holds is therefore all there is.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kit.config import ConfigError
from kit.errors import Fault
from model.config import Stream
from model.tasks import Task
from train.batch import Batch
from train.build import build_model, build_optimizer, trained_parameters
from train.checkpoint import Checkpoints, checkpoint_name, read_state
from train.config import Recipe
from train.ema import Ema
from train.export import export_checkpoint
from train.loading import open_loader
from train.loss import add_noise, losses
from train.metrics import STREAMS, Metrics, mean_loss
from train.models import models_behind_run, start_files
from train.parallel import World, reduce_over_replicas
from train.speed import Speed
from train.spikes import SpikeDetector
from train.state import generator_states, run_tensors, set_generators
from train.steps import learning_rate, task_at
from train.validate import Validation
from train.watch import Watchdog

_logger = logging.getLogger(__name__)


class BrokenRun(Fault):
    """Training cannot go on; the message says since when and why."""


class Trainer:
    """A run from its start, or from its last checkpoint.

    Args:
        resume: go on from the newest whole checkpoint in the recipe's folder, if there is one.

    Raises:
        ConfigError: a folder with checkpoints and no ``resume``, or checkpoints of another recipe.
        WeightsError: a start that is neither at a path nor in the cache.
        ValueError: data or weights that do not fit the recipe.
    """

    def __init__(self, recipe: Recipe, world: World, *, resume: bool = False) -> None:
        self.recipe, self.world = recipe, world
        start_files(recipe.init)
        self._out = Path(recipe.out)
        self._local = self._check_batch()
        self.loader = open_loader(
            recipe, rank=world.data_rank, world=world.data_size, pin_memory=world.device.type == "cuda"
        )
        self._checkpoints = Checkpoints(self._out / "checkpoints", recipe.checkpoint, rank=world.rank)
        start = self._checkpoints.latest()
        if start and not resume:
            raise ConfigError(f"{self._out} has checkpoints: give --resume to go on, or another out=")
        self.model = build_model(recipe, world)
        self._parameters = trained_parameters(self.model)
        self._by_stream = {s: [p for n, p in self._parameters.items() if _stream(n) == s] for s in recipe.streams}
        self.optimizer = build_optimizer(recipe.optimizer, self._parameters)
        self.ema = Ema(recipe.ema, self._parameters) if recipe.ema else None
        self._spikes = SpikeDetector(recipe.recovery)
        # for the card of an export, which the first rank writes
        self._models = [use.model_dump(mode="json") for use in models_behind_run(recipe)] if world.first else []
        self.step, self._skipped, self._rollbacks = 0, set[int](), 0
        self._drawn = Counter[str]()
        self._validation = Validation(recipe, world, self.model) if recipe.validation else None
        self._score: float | None = None
        self._asked = self._stop = False  # to stop: this rank, by a signal; all ranks, by agreement
        if start:
            self._restore(start)
        else:
            self._save()  # a broken step needs something to go back to
        total = sum(p.numel() for p in self.model.parameters())
        speed = Speed(
            recipe.model,
            recipe.parallel,
            trained=sum(p.numel() for p in self._parameters.values()) / total,
            device=world.device,
            ranks=world.size,
            peak_tflops=recipe.log.peak_tflops,
        )
        self._metrics = Metrics(self._out, recipe, speed, first=world.first, resumed_at=self.step)

    def run(self) -> bool:
        """Train to the last step, or until SIGTERM; either way the last step is in a checkpoint.

        A run that is done has its weights in ``export/`` as well, for the sampler and the next stage.

        Returns:
            Whether all steps are done.

        Raises:
            BrokenRun: too many rollbacks.
            OSError: the first or the last checkpoint could not be written.
        """
        try:
            with self._stopped_by_signal(), self._watchdog():
                # workers are forked: a thread that writes meanwhile might hold a lock that they would wait for
                self._checkpoints.wait()
                batches = iter(self.loader)
                while self.step < self.recipe.steps and not self._stop:
                    if not self._train_step(batches):
                        batches = self._roll_back()
                with self._metrics.clock.phase("checkpoint"):
                    self._save()
                    self._checkpoints.wait()
        finally:
            self._metrics.close()
            self._checkpoints.close()
        done = self.step >= self.recipe.steps
        if done and self.world.first and not (export := self._out / "export").exists():
            export_checkpoint(self._checkpoints.folder / checkpoint_name(self.step), export)
        return done

    def _train_step(self, batches: Iterator[Any]) -> bool:
        """One optimizer step; False if it must not be applied."""
        recipe, step, clock = self.recipe, self.step, self._metrics.clock
        task = task_at(step, recipe.tasks, recipe.seed)
        with clock.phase("data"):
            batch = next(batches).samples.to(self.world.device)
        rate = learning_rate(step, recipe.optimizer, recipe.steps)
        if step not in self._skipped:
            parts = self._accumulate(batch, task)
            with clock.phase("optimizer"):
                loss, norms, stop = self._agree(parts)
                norm = math.sqrt(math.fsum(n**2 for n in norms.values()))
                if reason := self._spikes.broken(norm):
                    if self.world.first:
                        _logger.warning(f"step {step + 1} ({task.name}) is not applied: {reason}")
                    self.optimizer.zero_grad()
                    return False
                self._apply(norm, rate)
            self._drawn[task.name] += 1
            values = {"lr": rate, "norm": norm} | {f"norm/{stream}": n for stream, n in norms.items()}
            for part_losses, sigmas in parts:
                self._metrics.table.add(task, part_losses, sigmas)
            self._metrics.speed.add(task, batch, recipe.batch)
        self.step, self._score = self.step + 1, None
        if step not in self._skipped:
            self._stop = stop
            self._metrics.step(self.step, task, loss, values)
        if self._validation and self.step % recipe.validation.every == 0:
            self._validate()
        with clock.phase("checkpoint"):
            self._checkpoints.poll()
            if self.step % recipe.checkpoint.every == 0:
                self._save()
        return True

    def _accumulate(self, batch: Batch, task: Task) -> list[tuple[dict[Stream, Tensor], dict[Stream, Tensor]]]:
        """Gradients of this rank's samples; losses and noise levels of each micro-batch, on the CPU."""
        recipe, clock, found = self.recipe, self._metrics.clock, []
        size = min(recipe.parallel.micro_batch or self._local, self._local)
        for begin in range(0, self._local, size):
            with clock.phase("data"):
                noisy = add_noise(
                    batch.part(begin, begin + size),
                    task,
                    seed=recipe.seed,
                    step=self.step,
                    noise=recipe.noise,
                    drop=recipe.drop,
                )
            reduce_over_replicas(self.model, begin + size >= self._local)
            with clock.phase("forward"):
                result = losses(self.model, noisy)
                loss = mean_loss(list(result.values())) * (size / self._local)
            with clock.phase("backward"):
                loss.backward()
                found.append(({stream: x.detach().cpu() for stream, x in result.items()}, noisy.sigmas))
        return found

    @torch.no_grad()
    def _agree(self, parts: list) -> tuple[float, dict[str, float], bool]:
        """What all ranks must know of the step, in one exchange: mean loss, gradient norms, whether to stop."""
        own = [float(mean_loss(list(result.values()))) / len(parts) for result, _ in parts]
        shared = [math.fsum(own), float(self._asked)]
        for parameters in self._by_stream.values():
            gradients = [_local(p.grad) for p in parameters if p.grad is not None]
            norms = torch._foreach_norm(gradients) if gradients else []
            shared.append(float(torch.stack(norms).double().square().sum()) if norms else 0.0)
        if self.world.size > 1:
            exchanged = torch.tensor(shared, dtype=torch.float64)
            dist.all_reduce(exchanged)
            shared = exchanged.tolist()
        loss, stop, *squares = shared
        norms = {s: math.sqrt(square / self.world.replicate) for s, square in zip(self._by_stream, squares)}
        return loss / self.world.size, norms, stop > 0

    @torch.no_grad()
    def _apply(self, norm: float, rate: float) -> None:
        if norm > self.recipe.optimizer.clip:
            gradients = [_local(p.grad) for p in self._parameters.values() if p.grad is not None]
            torch._foreach_mul_(gradients, self.recipe.optimizer.clip / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.step)

    def _validate(self) -> None:
        with self._metrics.clock.phase("validation"), self.ema.swapped() if self.ema else nullcontext():
            self._score, found = self._validation.measure(self.model)
            self._validation.sample(self.model, self._out / "samples" / f"step-{self.step:08d}")
        self._metrics.write(self.step, {"val/loss": self._score, **found})
        if self.world.first:
            _logger.info(f"step {self.step}: validation loss {self._score:.4f}")

    def _save(self) -> None:
        state = {
            "recipe": self.recipe.content(),
            "models": self._models,
            "loader": self.loader.state_dict(),
            "drawn": dict(self._drawn),
            "skipped": sorted(self._skipped),
            "norms": self._spikes.state(),
            "world": self.world.size,
            "validation": self._score,
        }
        generators = generator_states(self.world.rank, self.world.device)
        self._checkpoints.save(self.step, {**self._tensors(), "rng": generators}, state)

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        return run_tensors(self.model, self._parameters, self.optimizer, self.ema)

    def _restore(self, path: Path) -> None:
        """
        Raises:
            ConfigError: the checkpoint is of another recipe.
        """
        state = read_state(path)
        if changes := self.recipe.changes(state["recipe"]):
            raise ConfigError(f"{path} is of another recipe; start a new run for\n  " + "\n  ".join(changes))
        generators = generator_states(self.world.rank, self.world.device) if state["world"] == self.world.size else {}
        self._checkpoints.load(path, {**self._tensors(), "rng": generators})
        set_generators(generators)
        self.loader.load_state_dict(state["loader"])
        self.step, self._score = state["step"], state["validation"]
        self._skipped |= set(state["skipped"])
        self._drawn = Counter(state["drawn"])
        self._spikes.restore(state["norms"])
        if self.world.first:
            _logger.info(f"resumed at step {self.step} from {path}")

    def _roll_back(self) -> Iterator[Any]:
        """To the last checkpoint, from which the broken step will be left out; the batches from there."""
        self._rollbacks += 1
        if self._rollbacks > self.recipe.recovery.rollbacks:
            raise BrokenRun(f"step {self.step + 1} is broken, after {self._rollbacks - 1} rollbacks: see the log")
        self._skipped.add(self.step)
        self._restore(self._checkpoints.latest())
        self._metrics.rewind(self.step)
        return iter(self.loader)

    def _watchdog(self) -> Watchdog:
        clock, world = self._metrics.clock, self.world
        return Watchdog(
            lambda: (self.step + 1, *clock.now()),
            rank=world.rank,
            size=world.size,
            stall_s=self.recipe.recovery.stall_s,
            store=world.store,
        )

    def _check_batch(self) -> int:
        """Samples of a step that this rank computes."""
        batch, ranks = self.recipe.batch, self.world.data_size
        local = batch // ranks
        micro = min(self.recipe.parallel.micro_batch or local, local)
        if local < 1 or batch % ranks or local % micro:
            raise ConfigError(f"batch={batch} must be {ranks} ranks times a multiple of parallel.micro_batch={micro}")
        return local

    @contextmanager
    def _stopped_by_signal(self) -> Iterator[None]:
        """SIGTERM ends the run after its step. Ray Train runs this in a thread, which may not ask for signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: Any) -> None:
            self._asked = True

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _stream(name: str) -> Stream:
    """The stream that a parameter belongs to; the reference embedding came with the audio."""
    return next((stream for stream in STREAMS if stream in name.split(".")), "audio")


def _local(x: Tensor | nn.Parameter) -> Tensor:
    return x.to_local() if hasattr(x, "to_local") else x
