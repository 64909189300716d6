"""Latents of clips that are encoded when they are read: for trying codecs and captions without storing latents first.

Every epoch encodes again, in the workers of the dataloader; with Wan's VAE that costs more than the step itself, so
long runs read what ``train.encode`` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from train.encode_shard import FORMAT_COLUMNS, Encoder, UnusableClip
from unitalking_data.dataset import ClipDataset


class OnTheFlyEncoder:
    """The same latents as are stored in float32, encoded anew each time.

    Args:
        clips: media of a release with the columns that the prompts and the codecs need, see
            :data:`train.encode_shard.CLIP_COLUMNS`.
    """

    def __init__(self, clips: ClipDataset, encoder: Encoder) -> None:
        self.clips, self._encoder = clips, encoder

    def tensors(self, number: int, epoch: int) -> Mapping[str, Tensor]:
        """See :class:`train.data.LatentSource`; only the take that is drawn is read and encoded."""
        clip = self.clips.clip(number, epoch)
        try:
            codec_input = self._encoder.prepare(clip, *(clip[name] for name in FORMAT_COLUMNS))
        except UnusableClip as error:
            raise ValueError(f"clip {clip['key']} cannot be trained on: {error}") from None
        return self._encoder.encode(codec_input, self._encoder.prompts(clip))
