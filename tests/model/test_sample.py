"""The command line and the sampler from Python, whole: tiny networks, linear codecs, real files."""

from __future__ import annotations

import json
import multiprocessing
import re
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import yaml

from kit.config import ConfigError, load
from media.encode import write_video, write_wav
from media.reading import read_audio, read_frames
from model.config import ModelConfig
from model.generate import Sampler
from model.inspect import main as inspect_main
from model.request import Request
from model.sample import main
from model.settings import SampleConfig
from model.tasks import TASKS
from model.transformer import UniTalking
from model.weights.export import ModelCard, export_model
from tests.media import factory

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "sample"
RATE = 44_100


def network(config: ModelConfig) -> UniTalking:
    """No weight is zero, so that samples are not noise alone and depend on every input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = UniTalking(config).requires_grad_(False)
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A configuration with few steps, weights, and files to give."""
    root = tmp_path_factory.mktemp("sample")
    content = yaml.safe_load((CONFIGS / "tiny.yaml").read_text())
    model = ModelConfig.preset("tiny", layers=2)
    content |= {"model": model.model_dump(mode="json"), "steps": 3, "seconds": 0.6, "height": 32, "width": 32}
    content["audio_codec"]["iterations"] = 2
    (root / "config.yaml").write_text(yaml.safe_dump(content))
    export_model(root / "weights", model, network(model).state_dict(), card=ModelCard(name="t", summary="t"))
    rng = np.random.default_rng(0)
    cv2.imwrite(str(root / "face.png"), rng.integers(0, 256, (40, 60, 3), np.uint8))
    write_wav(root / "voice.wav", rng.normal(0, 0.1, RATE).astype(np.float32), RATE)
    write_video(root / "clip.mp4", factory.numbered(factory.regular(2, 24)), 24)
    return root


GIVEN = {
    "tts": [],
    "tts_ref": ["--reference", "voice.wav"],
    "t2av": [],
    "ti2av": ["--image", "face.png"],
    "tr2av": ["--reference", "voice.wav"],
    "tv2a": ["--video", "clip.mp4"],
}


def command(folder: Path, out: Path, *rest: str) -> list[str]:
    parts = ["--config", folder / "config.yaml", "--weights", folder / "weights", "--out", out, *rest]
    return [
        str(folder / part) if str(part).endswith((".png", "voice.wav", "clip.mp4")) else str(part) for part in parts
    ]


@pytest.mark.parametrize("name", TASKS)
def test_every_task_from_the_command_line(folder, tmp_path, name, capsys):
    arguments = command(folder, tmp_path, "--task", name, "--prompt", "hello there", "--key", "a", *GIVEN[name])
    assert main(arguments) == 0
    assert "a, steps: 3/3" in capsys.readouterr().err
    made_by = json.loads((tmp_path / "a.json").read_text())
    seconds = made_by["shape"]["samples"] / RATE
    assert len(read_audio(str(tmp_path / "a.wav"), rate=RATE)) == made_by["shape"]["samples"]
    if TASKS[name].video == "absent":
        assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "a.json"}
        return
    with av.open(str(tmp_path / "a.mp4")) as file:
        video, audio = file.streams.video[0], file.streams.audio[0]
        times = [frame.time for frame in file.decode(video)]
        assert np.allclose(times, np.arange(len(times)) / 24, atol=1e-3)
        assert len(times) == made_by["shape"]["frames"] == 13
        assert float(audio.start_time * audio.time_base) == 0
        assert float(audio.duration * audio.time_base) == pytest.approx(seconds, abs=1e-3)
        assert seconds == pytest.approx(len(times) / 24, abs=1 / RATE)
    assert made_by["weights"] and made_by["inputs"].keys() == made_by["files_given"].keys()
    assert main(arguments) == 0
    assert "1 of 1 samples done already" in (said := capsys.readouterr().err) and "steps" not in said


def rows(folder: Path, count: int = 5) -> Path:
    path = folder / "batch.jsonl"
    lines = [{"task": "t2av", "prompt": f"number {index}", "seed": index} for index in range(count)]
    lines[2] |= {"task": "ti2av", "image": "face.png", "key": "portrait"}
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("moment", ["000001.json", "000002.wav", "portrait.mp4"])
def test_a_killed_run_continues_to_the_same_files(folder, tmp_path, undisturbed, moment):
    out = tmp_path / "out"
    arguments = command(folder, out, "--batch", rows(folder), "--set", "batch_size=2")
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
    process.start()
    while not (out / moment).exists() and process.is_alive():
        time.sleep(0.001)
    process.kill()
    process.join()
    for path in out.glob("[!.]*"):  # whatever has a name is whole
        assert path.read_bytes() == (undisturbed / path.name).read_bytes()
    assert main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {path.name for path in undisturbed.iterdir()}
    for path in out.iterdir():
        assert path.read_bytes() == (undisturbed / path.name).read_bytes(), path.name


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert main(command(folder, out, "--batch", rows(folder), "--set", "batch_size=2")) == 0
    return out


def test_a_sample_is_the_same_in_any_batch(folder, tmp_path, undisturbed):
    """Up to what float rounding does to pixels."""
    assert main(command(folder, tmp_path, "--batch", rows(folder, 4), "--set", "batch_size=3")) == 0
    for key in ("000001", "000002", "portrait", "000004"):
        ours, theirs = (
            np.stack(list(read_frames(str(root / f"{key}.mp4"), fps=24, frames=13))).astype(float)
            for root in (tmp_path, undisturbed)
        )
        assert np.abs(ours - theirs).mean() < 0.5
    first, second = (read_audio(str(undisturbed / f"{key}.wav"), rate=RATE) for key in ("000001", "000002"))
    assert not np.allclose(first, second, atol=0.01)


def test_other_settings_do_not_mix_in_one_folder(folder, tmp_path, capsys):
    one = command(folder, tmp_path, "--task", "tts", "--prompt", "a", "--key", "a")
    assert main(one) == 0
    assert main([*one, "--set", "steps=2"]) == 2
    assert "a.json was made from another request, configuration or weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["--height", "40"], r"height: 40 is no multiple of 16; the nearest are \[32, 48\]"),
        (["--width", "7"], r"width: 7 is no multiple of 16; the nearest are \[16\]"),
        (["--task", "tts", "--seconds", "1e-6"], "less than one sample of audio"),
        (["--seconds", "-1"], "seconds: Input should be greater than 0"),
        (["--prompt", "a", "--image", "face.png"], "task t2av takes no image"),
        (["--task", "tr2av"], "task tr2av needs reference"),
        (["--task", "tv2a", "--video", "clip.mp4", "--seconds", "9"], "video end before the"),
        (["--task", "ti2av", "--image", "voice.wav"], "not a picture"),
        (["--task", "ti2av", "--image", "none.png"], "no such file"),
        (["--set", "device=tpu"], "device 'tpu' cannot be used"),
        (["--set", "steps=0"], "steps: Input should be greater"),
        (["--weights", "nowhere"], "nowhere"),
        (["--config", "none.yaml"], "cannot read the configuration none.yaml"),
        (["--batch", "none.jsonl"], "cannot read none.jsonl"),
    ],
)
def test_mistakes_end_with_code_2_and_a_reason(folder, tmp_path, capsys, change, complaint):
    out = tmp_path / "out"
    assert main(command(folder, out, "--task", "t2av", "--prompt", "a", *change)) == 2
    error = capsys.readouterr().err
    assert re.search("^error: ", error, re.MULTILINE) and re.search(complaint, error), error
    assert not out.exists() or not list(out.iterdir())


def test_bad_rows_stop_a_batch_before_any_work(folder, tmp_path, capsys):
    batch = folder / "bad.jsonl"
    lines = [{"task": "t2av", "prompt": "a"}, {"task": "t2av"}, {"task": "t2av", "prompt": "b", "height": 33}]
    batch.write_text("\n".join(map(json.dumps, lines)))
    assert main(command(folder, tmp_path / "out", "--batch", batch)) == 2
    error = capsys.readouterr().err
    assert "2 bad rows" in error and "line 2: prompt: Field required" in error
    assert "line 3: height: 33 is no multiple of 16" in error
    assert not (tmp_path / "out").exists()


def test_unknown_keys_of_the_configuration_are_refused(folder, tmp_path, capsys):
    (tmp_path / "config.yaml").write_text((folder / "config.yaml").read_text() + "\nstep: 5\n")
    arguments = command(
        folder, tmp_path / "out", "--task", "tts", "--prompt", "a", "--config", tmp_path / "config.yaml"
    )
    assert main(arguments) == 2
    assert "step: Extra inputs are not permitted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"audio_codec": {"kind": "linear", "channels": 20}},
            "channels of the audio codec: 20, but the network's is 16",
        ),
        ({"text_encoder": {"kind": "words", "length": 9}}, "rows of the text encoder: 9"),
        ({"video_codec": {"kind": "linear", "statistics": "none.json"}}, "none.json"),
        (
            {"guidance": {"video": {"text": 2}, "skip_layers": [1, 2]}},
            r"skip_layers \[2\] are not among the network's 2",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(folder, change, complaint):
    config = SampleConfig.model_validate(load(folder / "config.yaml", SampleConfig).model_dump() | change)
    with pytest.raises(ConfigError, match=complaint):
        Sampler(config, random_init=0)


def test_random_weights_are_never_silent(folder, tmp_path, capsys):
    arguments = ["--config", str(folder / "config.yaml"), "--out", str(tmp_path), "--task", "tts", "--prompt", "a"]
    assert main(arguments) == 2
    assert "--random-init SEED" in capsys.readouterr().err
    assert main([*arguments, "--random-init", "4"]) == 0
    assert json.loads((tmp_path / "sample.json").read_text())["weights"]["network"]["random_init"] == 4


def test_weights_are_a_setting_like_any_other(folder, capsys):
    for flags in (["--weights", "runs: 1/export"], ["--set", "weights='runs: 1/export'"]):
        assert main(["--config", str(folder / "config.yaml"), *flags, "--show-config"]) == 0
        assert "\nweights: 'runs: 1/export'  # --set\n" in capsys.readouterr().out


def sampler(folder: Path, **changes) -> Sampler:
    overrides = [f"{name}={value}" for name, value in changes.items()]
    return Sampler(load(folder / "config.yaml", SampleConfig, [f"weights={folder / 'weights'}", *overrides]))


def request(task: str, **fields) -> Request:
    return Request(task=task, prompt="a b", seconds=0.6, height=32, width=32, **fields)


def test_five_lines_of_python(folder, tmp_path):
    made = sampler(folder)
    asked = request("t2av")
    (sample,) = made.generate([asked])
    sample.save(tmp_path, made.made_by(asked))
    assert sample.video.shape == (13, 32, 32, 3)
    assert len(sample.audio) == round(13 / 24 * RATE)


def test_samples_come_in_the_order_of_their_requests(folder):
    asked = [
        request("t2av", key="a"),
        request("tv2a", key="b", video=str(folder / "clip.mp4")),
        request("t2av", key="c"),
    ]
    assert [sample.request.key for sample in sampler(folder, batch_size=2).generate(asked)] == ["a", "b", "c"]


def test_the_image_is_the_first_picture(folder):
    made = sampler(folder)
    asked = request("ti2av", image=str(folder / "face.png"))
    (sample,) = made.generate([asked])
    coded = made.video_codec.decode(made.encode_frames(made.frames(asked)))[0, :, 0]
    image = ((coded.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(int)
    assert np.abs(sample.video[0] - image).max() <= 1
    assert np.abs(sample.video[6] - image).mean() > 10


def test_a_given_video_keeps_its_frames(folder):
    made = sampler(folder)
    (sample,) = made.generate([request("tv2a", video=str(folder / "clip.mp4"))])
    assert np.array_equal(sample.video, made.frames(sample.request))


def test_a_trainers_network_is_left_as_it_is(folder):
    config = load(folder / "config.yaml", SampleConfig, ["offload=true", "dtype=bfloat16"])
    training = network(config.model).requires_grad_(True).train()
    Sampler(config, model=training).generate([request("tv2a", video=str(folder / "clip.mp4"))])
    assert training.training and all(p.requires_grad and p.dtype == torch.float32 for p in training.parameters())


def test_prompt_seed_and_voice_matter(folder):
    made = sampler(folder)
    voice = str(folder / "voice.wav")
    asked = [
        request("tr2av", reference=voice),
        request("tr2av", reference=voice, seed=1),
        request("tr2av", reference=voice, negative_prompt="noise"),
        request("t2av"),
    ]
    audios = [sample.audio for sample in made.generate(asked)]
    for index, audio in enumerate(audios):
        assert not any(np.allclose(audio, other, atol=1e-3) for other in audios[:index])


@pytest.mark.parametrize("changes", [{"dtype": "bfloat16"}, {"offload": True}])
def test_half_precision_and_offloading(folder, changes):
    (exact,), (other,) = (sampler(folder, **c).generate([request("t2av")]) for c in ({}, changes))
    assert np.corrcoef(exact.audio, other.audio)[0, 1] > 0.9
    assert np.abs(exact.video.astype(int) - other.video).mean() < (1e-6 if "offload" in changes else 20)


def test_weights_of_another_shape_are_refused(folder):
    config = load(folder / "config.yaml", SampleConfig)
    other = network(ModelConfig.preset("tiny", layers=1, fps=25.0))
    with pytest.raises(ConfigError, match="the network's layers, fps are not those"):
        Sampler(config, model=other)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path):
    load(path, SampleConfig)


@pytest.mark.parametrize("key", ["000001", "portrait"])
def test_figures_of_a_sample(undisturbed, tmp_path, key):
    assert inspect_main([str(undisturbed / f"{key}.json"), "--out", str(tmp_path)]) == 0
    names = {f"{key}.{kind}.png" for kind in ("mel", "attention_time", "attention_frames")}
    assert {path.name for path in tmp_path.iterdir()} == names
    for path in tmp_path.iterdir():
        assert cv2.imread(str(path)).std() > 10


def test_no_figures_of_what_is_no_sample(tmp_path, capsys):
    (tmp_path / "a.json").write_text("{}")
    assert inspect_main([str(tmp_path / "a.json")]) == 2
    assert "is not the record of a sample" in capsys.readouterr().err
