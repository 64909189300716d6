"""A video codec without weights: orthonormal cosines over blocks of pixels. Linear, and invertible when kept whole."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.codecs.dct import cosine_basis
from model.codecs.statistics import LatentStatistics, Normaliser, digest

# Orthonormal opponent colours: luminance, red against blue, green against both.
_COLOURS = torch.tensor(
    [
        [3**-0.5, 3**-0.5, 3**-0.5],
        [2**-0.5, 0.0, -(2**-0.5)],
        [-(6**-0.5), 2 * 6**-0.5, -(6**-0.5)],
    ],
    dtype=torch.float64,
)
_COLOUR_PENALTY = 4.0  # colour may be half as sharp as luminance


class LinearVideoCodec(nn.Module):
    """Blocks of ``temporal × spatial × spatial`` pixels to their lowest ``channels`` cosine coefficients.

    Causal as Wan's: the first frame is a block by itself (of equal frames), so an image is a video of one frame. For
    the ``tiny`` recipe; see :class:`model.codecs.base.VideoCodec`.

    Args:
        spatial, temporal: the block's size.
        channels: coefficients kept; None keeps all, which loses nothing.
        statistics: measured mean and deviation of the coefficients, or of their principal components, which are the
            latent's channels then; None leaves the coefficients as they are.
    """

    def __init__(
        self,
        *,
        spatial: int = 8,
        temporal: int = 4,
        channels: int | None = None,
        statistics: LatentStatistics | None = None,
    ) -> None:
        super().__init__()
        whole = 3 * temporal * spatial * spatial
        if channels is not None and not 1 <= channels <= whole:
            raise ValueError(f"channels={channels}: a block of {temporal} × {spatial} × {spatial} has 1 to {whole}")
        kept = channels or whole
        self.stride = (temporal, spatial, spatial)
        cosines, frequency = cosine_basis((temporal, spatial, spatial))
        basis = torch.stack([torch.kron(colour, cosines) for colour in _COLOURS])  # each (n, 3 n)
        frequencies = torch.stack([frequency, frequency * _COLOUR_PENALTY, frequency * _COLOUR_PENALTY])
        order = torch.argsort(frequencies.flatten(), stable=True)[:kept]
        self.register_buffer("basis", basis.flatten(0, 1)[order].float(), persistent=False)
        self.normaliser = Normaliser(kept, statistics)
        self.channels = self.normaliser.channels
        self.fingerprint = digest("linear-video-1", spatial, temporal, kept, self.normaliser.fingerprint)

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        temporal, rows, columns = self.stride
        if frames < 1 or (frames - 1) % temporal or height % rows or width % columns:
            raise ValueError(
                f"a video of {frames} frames, {width} × {height}, does not fit: 1 + k · {temporal} frames and"
                f" sides that are multiples of {columns} and {rows} do"
            )
        return self.channels, 1 + (frames - 1) // temporal, height // rows, width // columns

    def encode(self, video: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.VideoCodec.encode`."""
        self.latent_shape(*video.shape[2:])
        temporal, rows, columns = self.stride
        padded = torch.cat((video[:, :, :1].expand(-1, -1, temporal - 1, -1, -1), video), 2)
        blocks = padded.unflatten(4, (-1, columns)).unflatten(3, (-1, rows)).unflatten(2, (-1, temporal))
        blocks = blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)  # (B, F, h, w, 3 t p q)
        return self.normaliser.normalise((blocks @ self.basis.T).movedim(-1, 1))

    def decode(self, latent: Tensor) -> Tensor:
        """See :meth:`model.codecs.base.VideoCodec.decode`."""
        temporal, rows, columns = self.stride
        blocks = self.normaliser.restore(latent).movedim(1, -1) @ self.basis
        pixels = blocks.unflatten(-1, (3, temporal, rows, columns)).permute(0, 4, 1, 5, 2, 6, 3, 7)
        video = pixels.flatten(6, 7).flatten(4, 5).flatten(2, 3)
        first = video[:, :, :temporal].mean(2, keepdim=True)
        return torch.cat((first, video[:, :, temporal:]), 2).clamp(-1, 1)
