"""Small films for tests, written by PyAV, whose frames tell their number by their colour."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from autosteer_lib.rehearsal.tiny_models import SIDE

NEAR = (
    6  # levels of 256 by which MPEG-4 may miss a plain colour; measured: 5 on a pixel, 3.5 on a frame's mean
)
STEP = 20  # levels between two frames


def film(
    path: Path,
    levels: Sequence[int],
    *,
    side: int = SIDE,
    turned: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write a film whose i-th frame is plain and has red at the i-th level; its left half is brighter in blue."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = side, side // 2, "yuv420p"
        if turned:
            stream.set_display_rotation(turned)
        for level in levels:
            pixels = np.full((side // 2, side, 3), 40, dtype=np.uint8)
            pixels[..., 0] = level
            pixels[:, : side // 2, 2] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def reds(frames: np.ndarray) -> list[int]:
    """Which step of red each frame is nearest to."""
    means = frames[..., 0].mean(axis=(1, 2))
    assert np.abs(means - STEP * np.round(means / STEP)).max() <= NEAR
    return [int(level) for level in np.round(means / STEP)]
