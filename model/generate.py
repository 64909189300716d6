"""Generates video and audio for requests: reads their files, encodes, samples, decodes.

sampler = Sampler(load("configs/sample/tiny.yaml", SampleConfig), random_init=0)
request = Request(task="t2av", prompt="a woman says hello", seconds=2, height=64, width=64, seed=7)
(sample,) = sampler.generate([request])
sample.save("samples", sampler.made_by(request))
sample.video.shape, sample.fps, sample.audio.shape, sample.rate  # (T, H, W, 3), Hz, (S,), Hz
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit.config import ConfigError
from kit.provenance import code_revision
from kit.weights import WeightsError, locate
from media.clip import MediaError
from media.probe import content_hash
from media.reading import fit, read_audio, read_frames, read_image
from model.codecs.base import AudioCodec, VideoCodec
from model.codecs.build import build_audio_codec, build_text_encoder, build_video_codec
from model.codecs.files import file_values
from model.config import ModelConfig, Stream
from model.output import Sample, fingerprint, folder_hashes
from model.request import FILES, Request, RequestError
from model.sampler import Conditions, Latents, initial_noise, sample_latents
from model.settings import SampleConfig
from model.tasks import TASKS
from model.text import TextEncoder
from model.transformer import UniTalking
from model.weights.transformer import load_model


@dataclass(frozen=True)
class Shape:
    """Sizes of a sample before and after the codecs; the video's are 0 and () without one."""

    frames: int
    height: int
    width: int
    samples: int
    video: tuple[int, ...]
    audio: tuple[int, ...]


class Sampler:
    """A network with its codecs, ready for requests.

    Args:
        config: what to build; the network's weights are read when the first batch needs them.
        model: the network, where the caller has it (a trainer for one), on ``config.device``; it is left as it is.
        random_init: seed of random weights, for trying out what surrounds the network.

    Raises:
        ConfigError: neither weights, nor a network, nor ``random_init``; or two of them; parts that do not fit; a model
            file is missing.
        TensorsError: weights that do not fit, see :mod:`model.weights.load`.
    """

    def __init__(
        self, config: SampleConfig, *, model: UniTalking | None = None, random_init: int | None = None
    ) -> None:
        if sum(start is not None for start in (config.weights, model, random_init)) != 1:
            raise ConfigError("give the network's weights, or --random-init SEED to see what an untrained one makes")
        self.config = config
        try:
            named = file_values((config.video_codec, config.audio_codec, config.text_encoder))
            self._network = locate([*named, *filter(None, [config.weights])]).get(config.weights)
            self.video_codec = build_video_codec(config.video_codec)
            self.audio_codec = build_audio_codec(config.audio_codec)
            self.text_encoder = build_text_encoder(config.text_encoder)
        except (ValueError, OSError, WeightsError) as error:
            raise ConfigError(f"configuration: {error}") from error
        _check_fit(config, self.video_codec, self.audio_codec, self.text_encoder)
        if model is not None:
            _check_same(model.config, config.model)
        self._model, self._random_init = model, random_init
        self._device = config.torch_device()
        if not config.offload:
            for codec in (self.video_codec, self.audio_codec, self.text_encoder):
                _move(codec, self._device)

    @cached_property
    def model(self) -> UniTalking:
        if self._model is not None:
            return self._model
        config, dtype = self.config, getattr(torch, self.config.dtype)
        if self._network is not None:
            model = load_model(self._network, dtype=dtype, device="cpu" if config.offload else self._device)
            _check_same(model.config, config.model)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._random_init)
                model = UniTalking(config.model).to(dtype)
            if not config.offload:
                _move(model, self._device)
        if config.compile:
            for block in model.blocks:
                block.compile()
        return model.eval().requires_grad_(False)

    def shape(self, request: Request) -> Shape:
        """Sizes that the codecs and the network can hold; a video's length is the nearest possible.

        Raises:
            RequestError: a height, width or length that they cannot hold; for sides the message names the nearest.
        """
        config, video, audio = self.config.model, self.video_codec, self.audio_codec
        frames, latent = 0, ()
        samples = round(request.seconds * audio.rate)
        if TASKS[request.task].video != "absent":
            for name, step in (
                ("height", video.stride[1] * config.patch[1]),
                ("width", video.stride[2] * config.patch[2]),
            ):
                side = getattr(request, name)
                if side % step:
                    near = sorted({max(step, side // step * step), (side // step + 1) * step})
                    raise RequestError(f"{name}: {side} is no multiple of {step}; the nearest are {near}")
            frames = 1 + video.stride[0] * round(max(0.0, request.seconds * config.fps - 1) / video.stride[0])
            latent = video.latent_shape(frames, request.height, request.width)
            samples = round(frames / config.fps * audio.rate)
        if samples == 0:
            raise RequestError(f"seconds: {request.seconds} is less than one sample of audio")
        return Shape(frames, request.height or 0, request.width or 0, samples, latent, audio.latent_shape(samples))

    def made_by(self, request: Request) -> dict[str, Any]:
        """Everything that makes a sample what it is, as JSON; ``fingerprint`` is of what decides its content."""
        try:
            inputs = {name: content_hash(uri) for name in FILES if (uri := getattr(request, name))}
        except (MediaError, OSError) as error:
            raise RequestError(f"{request.key}: {error}") from error
        content = {
            "request": request.model_dump(mode="json", exclude=set(FILES)),
            "inputs": inputs,
            "weights": self._weights,
            "shape": asdict(self.shape(request)),
        }
        return {
            "fingerprint": fingerprint(content | {"config": self.config.content()}),
            **content,
            "files_given": {name: getattr(request, name) for name in inputs},
            "config": self.config.model_dump(mode="json"),
            "device": str(self._device),
            "fps": self.config.model.fps,
            "rate": self.audio_codec.rate,
            "revision": code_revision(),
            "versions": {
                name: version(name) for name in ("torch", "diffusers", "transformers", "av") if find_spec(name)
            },
        }

    @cached_property
    def _weights(self) -> dict[str, Any]:
        """The SHA-256 of each weight file of the network, or its origin, and the codecs' fingerprints."""
        network = {"random_init": self._random_init} if self._model is None else {"given_by": "the caller"}
        parts = ("video_codec", "audio_codec", "text_encoder")
        return {
            "network": folder_hashes(self._network) if self._network else network,
            **{part: getattr(self, part).fingerprint for part in parts},
        }

    def batches(self, requests: Sequence[Request]) -> list[list[Request]]:
        """The requests in batches of one task and shape, at most ``config.batch_size`` each, in a fixed order.

        The order depends on nothing but the requests, so that an interrupted run forms the same batches again.
        """
        groups: dict[tuple[Any, ...], list[Request]] = {}
        for request in requests:
            groups.setdefault((request.task, self.shape(request)), []).append(request)
        size = self.config.batch_size
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        """The sample of each request, in their order.

        Raises:
            RequestError: a size that cannot be, a file that cannot be read or is too short.
        """
        samples = [sample for batch in self.batches(requests) for sample in self.generate_batch(batch)]
        return sorted(samples, key=lambda sample: requests.index(sample.request))

    @torch.no_grad()
    def generate_batch(
        self, requests: Sequence[Request], *, on_step: Callable[[int], None] | None = None
    ) -> list[Sample]:
        """Samples of one batch from :meth:`batches`, in its order; ``on_step`` is told the number of finished steps."""
        task, shape, config = TASKS[requests[0].task], self.shape(requests[0]), self.config
        if absent := {*task.streams} - {*self.model.streams}:
            raise RequestError(f"task {task.name} needs {' and '.join(absent)}, which these weights lack")
        frames = [self.frames(request) for request in requests]
        conditions = self.conditions(requests, frames)
        noise = Latents(
            self.noise(requests, "video") if "video" in task.generated else None, self.noise(requests, "audio")
        )
        with self.placed(self.model):
            latents = sample_latents(
                self.model,
                task,
                noise,
                conditions,
                steps=config.steps,
                shift=config.shift,
                guidance=config.guidance,
                on_step=on_step,
            )
        videos = self._decode_video(latents.video, shape) if "video" in task.generated else frames
        audios = self._decode_audio(latents.audio, shape)
        fps, rate = config.model.fps, self.audio_codec.rate
        return [Sample(r, video, fps, audio, rate) for r, video, audio in zip(requests, videos, audios, strict=True)]

    def frames(self, request: Request) -> np.ndarray | None:
        """The request's image or video, cropped to its size: uint8 ``(T, height, width, 3)``, None without either.

        Raises:
            RequestError: the file cannot be read or is too short.
        """
        try:
            if request.image:
                frames = [read_image(request.image)]
            elif request.video:
                frames = read_frames(request.video, fps=self.config.model.fps, frames=self.shape(request).frames)
            else:
                return None
            return np.stack([fit(frame, width=request.width, height=request.height) for frame in frames])
        except (MediaError, OSError) as error:
            raise RequestError(f"{request.key}: {error}") from error

    def conditions(self, requests: Sequence[Request], frames: Sequence[np.ndarray | None]) -> Conditions:
        """What a batch is conditioned on; ``frames`` are those of each request, from :meth:`frames`."""
        with self.placed(self.text_encoder):
            text = self.text_encoder.encode([request.prompt for request in requests])
            null_text = self.text_encoder.encode([request.negative_prompt for request in requests])
        image = video = reference = None
        if frames[0] is not None:
            latents = torch.cat([self.encode_frames(each) for each in frames])
            image, video = (latents, None) if requests[0].image else (None, latents)
        if requests[0].reference:
            reference = torch.cat([self._encode_voice(request) for request in requests])
        return Conditions(
            *(None if x is None else x.to(self._device) for x in (text, null_text, image, video, reference))
        )

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        """uint8 ``(T, H, W, 3)`` to latents ``(1, C, F, h, w)``."""
        video = torch.from_numpy(frames).to(self._device).permute(3, 0, 1, 2)[None] / 127.5 - 1
        with torch.no_grad(), self.placed(self.video_codec):
            return self.video_codec.encode(video)

    def encode_audio(self, audio: np.ndarray) -> Tensor:
        """float32 ``(S,)`` at the codec's rate to latents ``(1, C, L)``."""
        with torch.no_grad(), self.placed(self.audio_codec):
            return self.audio_codec.encode(torch.from_numpy(audio).to(self._device)[None])

    def noise(self, requests: Sequence[Request], stream: Stream) -> Tensor:
        """What a batch starts from, each row from its own seed."""
        shape = self.shape(requests[0])
        sizes = shape.video if stream == "video" else shape.audio
        return initial_noise([request.seed for request in requests], stream, sizes).to(self._device)

    def _encode_voice(self, request: Request) -> Tensor:
        """The beginning of a voice as ``(1, reference_len, C)``, zero-padded."""
        try:
            audio = read_audio(request.reference, rate=self.audio_codec.rate)
        except (MediaError, OSError) as error:
            raise RequestError(f"{request.key}: {error}") from error
        length = self.config.model.reference_len
        audio = audio[: math.ceil(length / self.audio_codec.latent_rate * self.audio_codec.rate)]
        latent = self.encode_audio(audio)[:, :, :length]
        return nn.functional.pad(latent, (0, length - latent.shape[2])).transpose(1, 2)

    def _decode_video(self, latents: Tensor, shape: Shape) -> list[np.ndarray]:
        """One sample after the other, which bounds memory."""
        with self.placed(self.video_codec):
            return [_pixels(self.video_codec.decode(latent[None])[0, :, : shape.frames]) for latent in latents]

    def _decode_audio(self, latents: Tensor, shape: Shape) -> list[np.ndarray]:
        with self.placed(self.audio_codec):
            audios = [self.audio_codec.decode(latent[None])[0].float().cpu().numpy() for latent in latents]
        return [_cut(audio, shape.samples) for audio in audios]

    @contextmanager
    def placed(self, part: Any) -> Iterator[None]:
        """``part`` on the device while it works; with offloading, back in main memory afterwards."""
        if not self.config.offload or part is self._model:
            yield
            return
        _move(part, self._device)
        try:
            yield
        finally:
            _move(part, torch.device("cpu"))


def _check_fit(config: SampleConfig, video: VideoCodec, audio: AudioCodec, text: TextEncoder) -> None:
    """That the codecs make what the network takes, and that it has the layers to skip."""
    model = config.model
    for what, codec, network in (
        ("channels of the video codec", video.channels, model.video_channels),
        ("temporal stride of the video codec", video.stride[0], model.temporal_stride),
        ("channels of the audio codec", audio.channels, model.audio_channels),
        ("latents a second of the audio codec", round(audio.latent_rate, 4), round(model.audio_latent_rate, 4)),
        ("rows of the text encoder", text.length, model.text_len),
        ("width of the text encoder", text.width, model.text_dim),
    ):
        if codec != network:
            raise ConfigError(f"configuration: {what}: {codec}, but the network's is {network}")
    if absent := [layer for layer in config.guidance.skip_layers if not 0 <= layer < model.layers]:
        raise ConfigError(f"configuration: guidance.skip_layers {absent} are not among the network's {model.layers}")


def _check_same(network: ModelConfig, stated: ModelConfig) -> None:
    different = [name for name in ModelConfig.model_fields if getattr(network, name) != getattr(stated, name)]
    if different:
        raise ConfigError(f"the network's {', '.join(different)} are not those of the configuration's `model`")


def _move(part: Any, device: torch.device) -> None:
    """Codecs without weights have nothing to move."""
    if isinstance(part, nn.Module):
        part.to(device)


def _pixels(video: Tensor) -> np.ndarray:
    """``(3, T, H, W)`` in −1…1 to uint8 ``(T, H, W, 3)``."""
    scaled = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()


def _cut(audio: np.ndarray, samples: int) -> np.ndarray:
    """To the length asked for: codecs work in whole latents."""
    audio = np.clip(audio[:samples], -1, 1)
    return np.pad(audio, (0, samples - len(audio)))
