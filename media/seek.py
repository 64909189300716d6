"""Where to begin reading: the keyframe from which a moment can be decoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import av
from av.stream import Stream

from media.collect import TOLERANCE_S
from media.open import OpenMedia

# How far before the moment to look for a keyframe where the seek found none before it.
SEEK_BACK_S = (0.0, 1.0, 3.0, 10.0, 30.0)


def packets_from(media: OpenMedia, start_s: float, streams: Sequence[Stream]) -> Iterator[av.Packet]:
    """Packets of ``streams`` as they lie, from the last video keyframe that is not after ``start_s`` on.

    Where none is found, they come from the file's beginning.
    """
    for back_s in SEEK_BACK_S:
        target_s = start_s - back_s
        if target_s <= 0:
            break
        media.container.seek(round((media.origin_s + target_s) / media.video.time_base), stream=media.video)
        packets = media.container.demux(streams)
        head, key = [], None
        for packet in packets:  # MPEG-TS may land between keyframes
            if packet.stream is not media.video:
                head.append(packet)
            elif packet.is_keyframe:
                head.append(key := packet)
                break
        stamp = None if key is None else key.dts if key.pts is None else key.pts
        if stamp is not None and stamp * float(media.video.time_base) - media.origin_s <= start_s + TOLERANCE_S:
            return itertools.chain(head, packets)
    if start_s > 0:
        media.rewind()
    return media.container.demux(streams)
