"""Whole runs in one process: they resume to the bit, and what goes wrong is survived or said."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
import yaml

from kit.config import ConfigError
from model.weights.transformer import load_model
from tests.conftest import REPOSITORY
from tests.train.worlds import latents, recipe, stored, write_sampling, write_world
from train import cli, loop
from train.checkpoint import whole_checkpoints
from train.export import export_checkpoint
from train.loop import BrokenRun, Trainer
from train.parallel import start_world


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return write_world(str(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def world(release):
    torch.set_num_threads(1)
    return start_world(recipe(release, "").parallel, stall_s=100)


@pytest.fixture(scope="module")
def undisturbed(release, world, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    assert Trainer(recipe(release, out), world).run()
    return out


def records(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [record["loss"] for record in records(out) if "loss" in record]


def steps(out: Path) -> list[int]:
    return [int(path.name[5:]) for path in whole_checkpoints(out / "checkpoints")]


def test_a_run_learns_logs_and_exports(undisturbed):
    found = records(undisturbed)
    assert [record["step"] for record in found] == list(range(1, 9))
    assert {"norm/video", "norm/audio", "speed/tokens_s", "time/data", "memory/gb"} <= found[0].keys()
    assert any(name.startswith("loss/t2av/video/0.") for record in found for name in record)
    assert steps(undisturbed) == [0, 4, 8]
    assert load_model(undisturbed / "export").streams == ("video", "audio")


def test_a_run_resumes_to_the_bit(undisturbed, release, world, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    shutil.rmtree(out / "checkpoints/step-00000008")
    shutil.rmtree(out / "export")
    assert Trainer(recipe(release, out), world, resume=True).run()
    assert losses(out) == losses(undisturbed)
    ours, theirs = (load_model(run / "export").state_dict() for run in (out, undisturbed))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_neither_workers_nor_micro_batches_change_the_run(undisturbed, release, world, tmp_path):
    data = {"release": release, "latents": "tiny", "workers": 1, "in_memory": True}
    parallel = {"device": "cpu", "micro_batch": 1, "checkpointing": "selective"}
    Trainer(recipe(release, tmp_path, data=data, parallel=parallel), world).run()
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=1e-5)


def test_a_folder_with_checkpoints_is_not_trained_over_by_mistake(undisturbed, release, world):
    with pytest.raises(ConfigError, match="--resume"):
        Trainer(recipe(release, undisturbed), world)
    with pytest.raises(ConfigError, match=r"noise.shift: 5.0 there, 2.0 here"):
        Trainer(recipe(release, undisturbed, noise={"shift": 2}), world, resume=True)


def test_stage_2_starts_from_stage_1(release, world, tmp_path):
    one = recipe(release, tmp_path / "one", stage=1, steps=3)
    Trainer(one, world).run()
    two = Trainer(
        recipe(release, tmp_path / "two", init={"audio": str(tmp_path / "one/export")}, shares={"t2av": 1, "tts": 1}),
        world,
    )
    started, spoken = two.model.state_dict(), load_model(tmp_path / "one/export").state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in spoken.items())
    assert two.run()


def test_a_broken_step_is_left_out(undisturbed, release, world, tmp_path, monkeypatch):
    trainer = Trainer(recipe(release, tmp_path), world)
    real = loop.losses

    def sometimes_nan(model, batch):
        found = real(model, batch)
        return {name: loss * float("nan") for name, loss in found.items()} if trainer.step == 5 else found

    monkeypatch.setattr(loop, "losses", sometimes_nan)
    assert trainer.run()
    found = [record["step"] for record in records(tmp_path)]
    assert found == [1, 2, 3, 4, 5, 7, 8]
    assert losses(tmp_path)[:5] == losses(undisturbed)[:5]
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_a_run_that_breaks_again_and_again_ends(release, world, tmp_path, monkeypatch):
    trainer = Trainer(recipe(release, tmp_path, recovery={"rollbacks": 2}), world)
    real = loop.losses
    monkeypatch.setattr(loop, "losses", lambda *a: {name: x * float("nan") for name, x in real(*a).items()})
    with pytest.raises(BrokenRun, match="after 2 rollbacks"):
        trainer.run()


def test_old_checkpoints_go_and_the_best_stays(release, world, tmp_path):
    every = {"every": 2, "keep_last": 1, "keep_best": 1}
    kept = recipe(release, tmp_path, checkpoint=every, validation={"every": 2, "clips": 4, "quantiles": [0.5]})
    Trainer(kept, world).run()
    scores = {record["step"]: record["val/loss"] for record in records(tmp_path) if "val/loss" in record}
    assert set(scores) == {2, 4, 6, 8}
    assert set(steps(tmp_path)) == {8, min(scores, key=scores.get)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_validation_and_samples_change_nothing(release, world, tmp_path, dtype):
    parallel = {"device": "cpu", "threads": 1, "dtype": dtype}
    Trainer(recipe(release, tmp_path / "blind", parallel=parallel), world).run()
    watched = {"every": 2, "clips": 3, "quantiles": [0.2, 0.8], **write_sampling(tmp_path / "sampling")}
    Trainer(recipe(release, tmp_path / "run", parallel=parallel, validation=watched), world).run()
    assert losses(tmp_path / "run") == losses(tmp_path / "blind")
    ours, theirs = (stored(tmp_path / run / "checkpoints/step-00000008") for run in ("run", "blind"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == torch.float32 and torch.equal(value, theirs[name]), name
    made = sorted(path.relative_to(tmp_path / "run/samples").as_posix() for path in tmp_path.rglob("samples/*/*.mp4"))
    assert made == [f"step-{step:08d}/{key}.mp4" for step in (2, 4, 6, 8) for key in ("both", "sound")]


def test_requests_that_cannot_be_read_are_found_before_work_starts(release, world, tmp_path):
    sampling = write_sampling(tmp_path / "sampling") | {"requests": str(tmp_path / "none.jsonl")}
    with pytest.raises(ConfigError, match=r"none\.jsonl"):
        Trainer(recipe(release, tmp_path / "run", validation=sampling), world)


def test_the_validation_loss_does_not_depend_on_how_clips_are_batched(release, world, tmp_path):
    found = []
    for micro in (None, 1):
        changed = recipe(
            release,
            tmp_path / str(micro),
            steps=2,
            parallel={"device": "cpu", "micro_batch": micro},
            data={"release": release, "latents": "tiny", "workers": 0, "durations_s": [1, 3], "aspects": [1, 2]},
            validation={"every": 2, "clips": 3, "quantiles": [0.5]},
        )
        Trainer(changed, world).run()
        found.append(next(r["val/loss"] for r in records(tmp_path / str(micro)) if "val/loss" in r))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_an_export_of_the_raw_weights_is_not_the_average(undisturbed, tmp_path):
    path = undisturbed / "checkpoints/step-00000008"
    raw = load_model(export_checkpoint(path, tmp_path / "raw", raw=True)).state_dict()
    average = load_model(undisturbed / "export").state_dict()
    assert not torch.equal(raw["audio.head.head.weight"], average["audio.head.head.weight"])


def test_lora_trains_its_updates_alone_and_is_merged(undisturbed, release, world, tmp_path):
    base = load_model(undisturbed / "export").state_dict()
    config = recipe(release, tmp_path, ema=None, lora={"rank": 2}, init={"audio": str(undisturbed / "export")}, steps=4)
    trainer = Trainer(config, world)
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)
    assert trainer.run()
    merged = load_model(tmp_path / "export").state_dict()
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name.replace(".lora_b", ".weight") for name in trained if name.endswith(".lora_b")}


def test_lora_can_adapt_layers_that_start_at_zero(undisturbed, release, world, tmp_path):
    lora = {"rank": 2, "targets": ["*.cross_attn.v_ref"]}
    start = {"audio": str(undisturbed / "export")}
    Trainer(recipe(release, tmp_path, ema=None, lora=lora, init=start, steps=4, shares={"tr2av": 1}), world).run()
    base, merged = (load_model(run / "export").state_dict() for run in (undisturbed, tmp_path))
    name = "blocks.0.audio.cross_attn.v_ref.weight"
    assert not torch.equal(base[name], merged[name])


def test_a_cut_checkpoint_is_not_resumed(undisturbed, release, world, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    (shard,) = (out / "checkpoints/step-00000008").glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="not whole"):
        trainer = Trainer(recipe(release, out), world, resume=True)
        assert trainer.step == 4 and trainer.run()
    assert steps(out) == [0, 4, 8]
    assert losses(out) == losses(undisturbed)


def test_a_full_disk_costs_a_checkpoint_and_not_the_run(undisturbed, release, world, tmp_path, monkeypatch, caplog):
    fill_disk(monkeypatch, at="step-00000004")
    assert Trainer(recipe(release, tmp_path), world).run()
    assert steps(tmp_path) == [0, 8] and losses(tmp_path) == losses(undisturbed)
    assert "step-00000004 could not be written: rank 0: [Errno 28]" in caplog.text
    assert not list(tmp_path.rglob(".writing*"))


def test_a_disk_that_is_full_at_the_end_is_an_error(release, world, tmp_path, monkeypatch, capsys):
    fill_disk(monkeypatch, at="step-00000008")
    path = write_recipe(tmp_path / "r.yaml", recipe(release, tmp_path / "run"))
    monkeypatch.setattr(cli, "start_world", lambda *args, **kwargs: world)
    monkeypatch.setattr(cli.dist, "destroy_process_group", lambda: None)  # the other tests need it
    assert cli.main(2, ["--config", str(path)]) == 1
    assert "No space left" in capsys.readouterr().err
    assert steps(tmp_path / "run") == [0, 4] and not (tmp_path / "run/export").exists()


def fill_disk(monkeypatch, *, at: str) -> None:
    write = dcp.FileSystemWriter.write_data

    def fail(self, plan, planner):
        if at in str(self.path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, plan, planner)

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", fail)


def test_clips_without_reference_or_prompt_are_trained_on_with_none(world, tmp_path):
    def bare(key, number, rng):
        tensors = safetensors.torch.load(latents(key, number, rng)["latents.safetensors"])
        lacking = ("ref", "text.short", "text.detailed") if number % 2 else ()
        kept = {name: value for name, value in tensors.items() if not name.startswith(lacking)}
        return {"latents.safetensors": safetensors.torch.save(kept)}

    release = write_world(str(tmp_path / "world"), make_latents=bare)
    with pytest.warns(UserWarning, match="get the empty one"):
        assert Trainer(recipe(release, tmp_path / "run", shares={"tr2av": 1}), world).run()


def test_compiled_blocks_learn_the_same_without_falling_back(undisturbed, release, world, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    validated = {"every": 2, "clips": 2, "quantiles": [0.5]}
    parallel = {"device": "cpu", "threads": 1, "compile": True}
    Trainer(recipe(release, tmp_path, parallel=parallel, validation=validated, steps=4), world).run()
    assert losses(tmp_path) == pytest.approx(losses(undisturbed)[:4], rel=1e-5)


def run_cli(config: Path, *arguments: str, prelude: str = "") -> subprocess.Popen:
    code = f"import sys\n{prelude}\nfrom train import cli\nsys.exit(cli.main(2, sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, "--config", str(config), *arguments],
        cwd=REPOSITORY,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write_recipe(path: Path, content) -> Path:
    path.write_text(yaml.safe_dump(content.content()))
    return path


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_killed_writer_leaves_nothing_that_is_resumed(undisturbed, release, world, tmp_path):
    """Killed with -9 while the checkpoint of step 8 is being written: step 4 is resumed, and ends as if nothing was."""
    out = tmp_path / "run"
    stalling = (
        "import time\nfrom torch.distributed.checkpoint import FileSystemWriter as W\nwrite = W.write_data\n"
        "def slow(self, plan, planner):\n"
        "    if '00000008' in str(self.path): (self.path / 'half').write_text('x'); time.sleep(600)\n"
        "    return write(self, plan, planner)\nW.write_data = slow"
    )
    process = run_cli(write_recipe(tmp_path / "r.yaml", recipe(release, out)), prelude=stalling)
    wait_for((out / "checkpoints/.writing-step-00000008/half").exists)
    with pytest.raises(ConfigError, match="another run"):
        Trainer(recipe(release, out), world, resume=True)
    assert (out / "checkpoints/.writing-step-00000008/half").exists()
    process.kill()
    process.communicate()
    assert steps(out) == [0, 4]
    assert Trainer(recipe(release, out), world, resume=True).run()
    assert losses(out) == losses(undisturbed)
    assert not list((out / "checkpoints").glob(".writing*"))


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_and_exits(undisturbed, release, world, tmp_path, workers):
    """To the whole group of processes, as a scheduler sends it."""
    out = tmp_path / "run"
    data = {"release": release, "latents": "tiny", "workers": workers}
    long = recipe(release, out, steps=100_000, checkpoint={"every": 50_000}, data=data)
    process = run_cli(write_recipe(tmp_path / "r.yaml", long))
    wait_for(lambda: (out / "metrics.jsonl").exists() and len(losses(out)) > 2)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == cli.STOPPED and "Traceback" not in said
    assert steps(out)[-1] == records(out)[-1]["step"] > 2
    assert losses(out)[:8] == losses(undisturbed)[: len(losses(out))]


def test_an_error_in_a_worker_ends_the_run(release, tmp_path):
    """With one line, and without waiting for the other workers."""
    data = {"release": release, "latents": "tiny", "workers": 2}
    model = {**recipe(release, "").model.model_dump(), "audio_channels": 7}
    process = run_cli(write_recipe(tmp_path / "r.yaml", recipe(release, tmp_path / "run", data=data, model=model)))
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 2, said
    assert "error: audio latents of train_" in said and "have 3 channels, the model 7" in said
    assert "Traceback" not in said


def test_a_signal_at_any_moment_of_a_step_is_heard(release, world, tmp_path, monkeypatch):
    trainer = Trainer(recipe(release, tmp_path, checkpoint={"every": 100}), world)
    real = Trainer._apply

    def signalled(self, *arguments):
        if self.step == 3:  # the ranks have agreed that step 4 is not the last
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, *arguments)

    monkeypatch.setattr(Trainer, "_apply", signalled)
    assert not trainer.run()
    assert steps(tmp_path) == [0, 5]


def test_the_command_line_tells_mistakes(release, tmp_path, capsys):
    path = write_recipe(tmp_path / "r.yaml", recipe(release, tmp_path / "out"))
    for arguments, words in (
        (["--set", "nonsense=1"], "nonsense"),
        (["--set", "data.latents=other"], "no finished latents 'other', but tiny"),
        (["--set", "batch=5", "--set", "parallel.micro_batch=2"], "micro_batch"),
        (["--set", "model.audio_channels=7"], "7"),
    ):
        assert cli.main(2, ["--config", str(path), *arguments]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(1, ["--config", str(path)]) == 2
    assert "train.stage2" in capsys.readouterr().err
