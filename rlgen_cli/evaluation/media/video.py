"""Films: MP4 (H.264, AAC) and WebM (VP9, Opus), through PyAV."""

import importlib.util
import itertools
from collections import deque
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from rlgen_cli.core.extras import imported

CODECS = {"mp4": ("libx264", "aac"), "webm": ("libvpx-vp9", "libopus")}
QUALITY = {"mp4": {"crf": "18", "preset": "medium"}, "webm": {"crf": "24", "b": "0"}}
SOUND_RATE = 48_000  # the one that Opus has
FILMS = tuple(CODECS)


def has_video() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


def require_video() -> Any:
    """PyAV.

    Raises:
        UserError: where it is not installed.
    """
    return imported("av", "video", "format: mp4 and webm are written with PyAV;")


def write_film(path: Path, frames: Iterable[Tensor], fps: int, sound: tuple[np.ndarray, int] | None = None) -> None:
    """A film, `path` ending in .mp4 or .webm.

    Args:
        frames: uint8 [3, H, W] each, all of one size; a side that is odd gets one more row or column.
        sound: float [S] in [−1, 1], and its rate.

    Raises:
        UserError: without PyAV.
    """
    av, kind = require_video(), path.suffix[1:]
    frames = iter(frames)
    first = _even(next(frames))
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as film:
        picture_codec, sound_codec = CODECS[kind]
        # One thread, so that the same frames are the same bytes.
        video = film.add_stream(picture_codec, rate=fps, options={**QUALITY[kind], "threads": "1"})
        video.height, video.width, video.pix_fmt = first.shape[1], first.shape[2], "yuv420p"
        audio = film.add_stream(sound_codec, rate=SOUND_RATE, layout="mono") if sound else None
        heard = deque(_encoded(av, audio, *sound) if sound and audio else [])
        for i, frame in enumerate(itertools.chain([first], map(_even, frames))):
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.permute(1, 2, 0).cpu().numpy()), "rgb24")
            shown.pts, shown.time_base = i, Fraction(1, fps)
            film.mux(video.encode(shown))
            while heard and heard[0].pts * heard[0].time_base <= Fraction(i, fps):  # beside the frames it belongs to
                film.mux(heard.popleft())
        film.mux(video.encode())
        film.mux(list(heard))


def _encoded(av: Any, audio: Any, samples: np.ndarray, rate: int) -> list[Any]:
    """The packets of a sound."""
    whole = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], "fltp", "mono")
    whole.sample_rate, whole.pts = rate, 0
    audio.codec_context.open(strict=False)
    resampler = av.AudioResampler(audio.format, "mono", SOUND_RATE, frame_size=audio.codec_context.frame_size)
    parts = [*resampler.resample(whole), *resampler.resample(None), None]
    return [packet for part in parts for packet in audio.encode(part)]


def _even(frame: Tensor) -> Tensor:
    """With an even number of rows and columns, which halved colours need."""
    _, high, wide = frame.shape
    if high % 2 == wide % 2 == 0:
        return frame
    return pad(frame.float().unsqueeze(0), [0, wide % 2, 0, high % 2], mode="replicate")[0].to(frame.dtype)
