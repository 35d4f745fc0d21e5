"""Episodes as films: MP4 by gymnasium, and the same as GIF for pages that show nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ppo_agent.common import atomic_files
from ppo_agent.common.types import Array

# A GIF is for a page: smaller and with fewer frames than the film.
_LARGEST_WIDTH = 320
_MOST_FRAMES_PER_SECOND = 25


class Recorder(gymnasium.wrappers.RecordVideo):
    """Records every episode: `rl-video-episode-N.mp4` and `.gif`.

    Args:
        env: with `render_mode="rgb_array"`.
        folder: for the films.
    """

    def __init__(self, env: gymnasium.Env, folder: str) -> None:
        super().__init__(env, folder, episode_trigger=lambda _: True, disable_logger=True)

    def stop_recording(self) -> None:
        """Writes the films of the episode."""
        frames: list[Any] = list(self.recorded_frames)
        name = self._video_name
        super().stop_recording()
        if frames:
            write_gif(Path(self.video_folder, f"{name}.gif"), frames, self.frames_per_sec)


def write_gif(path: Path, frames: list[Array], frames_per_second: float) -> None:
    """Writes an endless GIF, at most 320 pixels wide and with at most 25 frames per second.

    Args:
        path: the file.
        frames: arrays [H, W, 3] uint8.
        frames_per_second: of `frames`.
    """
    from PIL import Image

    every = max(1, int(np.ceil(frames_per_second / _MOST_FRAMES_PER_SECOND)))
    kept = [Image.fromarray(frame) for frame in frames[::every]]
    scale = min(1.0, _LARGEST_WIDTH / kept[0].width)
    size = (round(kept[0].width * scale), round(kept[0].height * scale))
    first, *others = [_with_palette(image.resize(size, Image.Resampling.LANCZOS)) for image in kept]
    data = io.BytesIO()
    # GIF counts hundredths of a second.
    duration = 10 * max(2, round(100 * every / frames_per_second))
    first.save(data, "GIF", save_all=True, append_images=others, duration=duration, loop=0, optimize=True)
    atomic_files.replace_file(path, data.getvalue())


def _with_palette(image: Any) -> Any:
    from PIL import Image

    return image.quantize(64, dither=Image.Dither.NONE)
