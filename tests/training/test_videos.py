"""Films of episodes."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from PIL import Image

from ppo_agent.training import videos


def frames_of(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """The frames of a GIF and the milliseconds that each is shown."""
    with Image.open(path) as image:
        found, durations = [], []
        for index in range(image.n_frames):
            image.seek(index)
            found.append(np.asarray(image.convert("RGB"), int))
            durations.append(image.info["duration"])
        return found, durations


def test_every_episode_becomes_mp4_and_gif(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    pytest.importorskip("pygame")
    folder = tmp_path / "films"
    env = videos.Recorder(gymnasium.make("CartPole-v1", render_mode="rgb_array"), str(folder))
    rendered = []
    for _ in range(2):
        env.reset(seed=0)
        steps, ended = 0, False
        while not ended:
            _, _, terminated, truncated, _ = env.step(0)
            steps, ended = steps + 1, terminated or truncated
        rendered.append(steps + 1)
    env.close()
    names = [f"rl-video-episode-{episode}" for episode in (0, 1)]
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("mp4", "gif")}
    for name, count in zip(names, rendered, strict=True):
        frames, durations = frames_of(folder / f"{name}.gif")
        # CartPole has 50 frames a second; equal ones that follow each other are one.
        assert sum(durations) == 40 * ((count + 1) // 2)
        assert frames[0].shape[1] == 320
        assert (folder / f"{name}.mp4").stat().st_size > 1000


def test_a_gif_shows_the_frames(tmp_path: Path, rng: np.random.Generator) -> None:
    colours = rng.integers(0, 255, (6, 3))
    frames = [np.broadcast_to(colour, (20, 30, 3)).astype(np.uint8) for colour in colours]
    videos.write_gif(tmp_path / "film.gif", frames, 10)
    found, durations = frames_of(tmp_path / "film.gif")
    assert durations == [100] * 6
    for frame, expected in zip(found, frames, strict=True):
        assert frame.shape == (20, 30, 3)
        assert np.abs(frame - expected).max() <= 4
