"""Damages the folder of a run at random and resumes it with `ppo-train`, up to the first iteration.

    PYTHONPATH=tests python -m reliability.corruptions --corruptions=100

Each time the run must go on from the newest checkpoint that is still what was written, with all variables as they were
then, or, if there is none, end with status 1 and one line, and leave the folder as it is.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from ppo_agent import _stack

FLAGS = (
    "--num_environments=2", "--collect_steps_per_iteration=16", "--num_epochs=1", "--minibatch_size=32",
    "--actor_fc_layers=4", "--value_fc_layers=4", "--eval_interval=2", "--num_eval_episodes=1",
    "--checkpoint_interval=1", "--checkpoints_kept=4",
)  # fmt: skip


def main() -> int:
    """Runs the program; returns 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corruptions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _stack.import_tensorflow()
    with tempfile.TemporaryDirectory() as folder:
        problems, counts = run(Path(folder), arguments.corruptions, arguments.seed)
    for problem in problems:
        print(problem)
    print(f"{arguments.corruptions} corruptions, {len(problems)} problems; {dict(counts)}")
    return 1 if problems else 0


def run(folder: Path, number: int, seed: int) -> tuple[list[str], collections.Counter[str]]:
    """Returns what went wrong, a sentence each, and how often what came out.

    Args:
        folder: to work in.
        number: of corruptions.
        seed: of their choice.
    """
    rng = random.Random(seed)
    problems: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    with without_compilation():
        _make_run(folder / "sound")
        known = _read(folder / "sound")
        for index in range(number):
            root_dir = folder / "damaged"
            shutil.rmtree(root_dir, ignore_errors=True)
            shutil.copytree(folder / "sound", root_dir)
            done = [_damage(root_dir, rng) for _ in range(rng.choice([1, 1, 2, 3, 8, 20]))]
            outcome, problem = _resume(root_dir, folder / "sound", known)
            counts[outcome] += 1
            if problem:
                problems.append(f"{index}, {', '.join(done)}: {problem}")
    return problems, counts


def _make_run(root_dir: Path) -> None:
    from ppo_agent import train
    from ppo_agent.training.recorder import RunRecorder

    with mock.patch.object(RunRecorder, "finish", _only_save), contextlib.redirect_stdout(io.StringIO()):
        assert train.main(["ppo-train", f"--root_dir={root_dir}", *FLAGS, "--total_environment_steps=200"]) == 0


def _only_save(recorder: Any, trainer: Any, *, interrupted: bool, finished: bool) -> dict[str, Any]:
    recorder.save(trainer)
    return {"interrupted": True, **recorder.result(trainer, finished=finished)}


def _resume(root_dir: Path, sound: Path, known: dict[str, bytes]) -> tuple[str, str | None]:
    """Returns what came of resuming, and what is wrong with that."""
    from ppo_agent import train
    from ppo_agent.checkpoint.store import CheckpointStore, load

    before = _read(root_dir)
    intact = [path for path in _checkpoints(sound) if _is_intact(path, known, before)]
    resumed: list[Any] = []
    errors = io.StringIO()
    take = mock.patch.object(train, "_train", lambda trainer, _: resumed.append(trainer) or 0)
    with take, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        status = train.main(["ppo-train", f"--root_dir={root_dir}", "--resume"])
    said = errors.getvalue()
    if "Traceback" in said:
        return "traceback", said
    if not intact:
        if status != 1 or len(said.splitlines()) != 1 or resumed:
            return "wrong", f"status {status}, expected 1 and one line: {said}"
        changed = {name for name, data in before.items() if _read(root_dir).get(name) != data}
        return "refused", f"{changed} changed" if changed else None
    newest = intact[0]
    if status or not resumed:
        return "refused", f"status {status} though {newest.name} is intact: {said}"
    arrays, _ = resumed[0].checkpoint(CheckpointStore(root_dir)).snapshot()
    expected = load(newest).arrays
    if any(arrays[name].tobytes() != value.tobytes() for name, value in expected.items() if name in arrays):
        return "wrong", f"other variables than those of {newest.name}"
    is_newest = newest == _checkpoints(sound)[0]
    names = [path.name for path in _checkpoints(sound)]
    damaged = [name for name in names[: names.index(newest.name)] if (root_dir / "checkpoints" / name).is_dir()]
    if not all(name in said for name in damaged) or (damaged and newest.name not in said):
        return "not told", f"{damaged} and {newest.name} are not all named: {said}"
    return ("newest" if is_newest else "an older one"), None


def _is_intact(path: Path, known: dict[str, bytes], found: dict[str, bytes]) -> bool:
    names = [name for name in known if name.startswith(f"checkpoints/{path.name}/")]
    return all(found.get(name) == known[name] for name in names)


def _checkpoints(root_dir: Path) -> list[Path]:
    """Newest first."""
    return sorted((root_dir / "checkpoints").iterdir(), key=lambda path: -int(path.name.split("-")[1]))


def _read(root_dir: Path) -> dict[str, bytes]:
    files = (path for path in root_dir.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(root_dir)): path.read_bytes() for path in files}


def _damage(root_dir: Path, rng: random.Random) -> str:
    """Does one damage, mostly to the newest checkpoints; returns what."""
    files = sorted(path for path in (root_dir / "checkpoints").rglob("*") if path.is_file())
    if not files:
        return "nothing left"
    newest = [path for path in files if path.parent.name == max(p.parent.name for p in files)]
    path = rng.choice(newest if rng.random() < 0.6 else [*files, root_dir / "settings.json", root_dir / "metrics.csv"])
    if not path.exists():
        return "nothing left"
    kind = rng.choice(list(_DAMAGES))
    _DAMAGES[kind](path, files, rng)
    return f"{kind} {path.parent.name}/{path.name}"


def _flip(path: Path, _: list[Path], rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 3])):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def _truncate(path: Path, _: list[Path], rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) + 1)])


def _delete(path: Path, _: list[Path], rng: random.Random) -> None:
    if rng.random() < 0.3 and path.parent.name.startswith("checkpoint-"):
        shutil.rmtree(path.parent)
    else:
        path.unlink()


def _swap(path: Path, files: list[Path], rng: random.Random) -> None:
    alike = [other for other in files if other != path and (other.name == path.name or rng.random() < 0.2)]
    if alike:
        other = rng.choice(alike)
        mine, its = path.read_bytes(), other.read_bytes()
        path.write_bytes(its)
        other.write_bytes(mine)


def _swap_folders(path: Path, files: list[Path], rng: random.Random) -> None:
    folders = sorted({file.parent for file in files if file.parent.exists()} - {path.parent})
    if folders and path.parent.name.startswith("checkpoint-"):
        other, aside = rng.choice(folders), path.parent.with_name("aside")
        path.parent.rename(aside)
        other.rename(path.parent)
        aside.rename(other)


def _extend(path: Path, _: list[Path], rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(rng.randrange(1, 100)))


def _replace(path: Path, _: list[Path], rng: random.Random) -> None:
    path.write_bytes(rng.choice([b"", b"{}", b"null", b"[1]", bytes(len(path.read_bytes())), rng.randbytes(500)]))


_DAMAGES: dict[str, Callable[[Path, list[Path], random.Random], None]] = {
    "flip": _flip, "truncate": _truncate, "delete": _delete, "swap": _swap, "swap folders": _swap_folders,
    "extend": _extend, "replace": _replace,
}  # fmt: skip


@contextlib.contextmanager
def without_compilation() -> Iterator[None]:
    """Lets updates run operation by operation."""
    import tensorflow as tf

    from ppo_agent.learner.compilation import CompiledUpdate

    def update(compiled: Any, rows: Any, weights: Any) -> Any:
        return compiled.update(rows, weights)

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        with mock.patch.object(CompiledUpdate, "__call__", update):
            yield
    finally:
        tf.config.run_functions_eagerly(before)


if __name__ == "__main__":
    sys.exit(main())
