"""Compiled programs are loaded by the next process, and only where they are sound."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import forked_programs
import pytest
import tensorflow as tf

from ppo_agent.common import compilation_cache

CAN_SAVE = tuple(int(part) for part in tf.__version__.split(".")[:2]) >= (2, 21)
needs_saving = pytest.mark.skipif(not CAN_SAVE, reason="XLA of this TensorFlow cannot save programs for a CPU")

# Prints the results of a compiled function, bit by bit, and what a child process inherits; the noise passes here.
PROGRAM = """
import json, os, re, sys
import ppo_agent
import tensorflow as tf
from ppo_agent.common import compilation_cache

{before}
compilation_cache.start()
compilation_cache._LOADING_NOISE = {noise}

@tf.function(jit_compile=True, autograph=False)
def f(x):
    for index in range(1, 20):
        x = tf.tanh(x @ tf.cast(tf.reshape(tf.range(64), [8, 8]) % (index + 3), tf.float32) / 10 + index / 7) + x
    return x

x = tf.cast(tf.reshape(tf.range(48), [6, 8]), tf.float32) / 48
{after}
y = compilation_cache.call(f, x)
print(json.dumps([y.numpy().tobytes().hex(), os.environ.get("TF_XLA_FLAGS")]))
"""


def run(
    folder: Path | str,
    before: str = "",
    after: str = "",
    noise: str = 're.compile(b"(?!)")',
    index: int = 0,
    **variables: str,
) -> tuple[str, str | None, str]:
    """Runs the program in a process of its own; returns its result, TF_XLA_FLAGS after it, and standard error."""
    environment = {name: text for name, text in os.environ.items() if name not in ("TF_XLA_FLAGS", "XLA_FLAGS")}
    environment |= {compilation_cache.VARIABLE: str(folder), "TF_CPP_MIN_LOG_LEVEL": "2", **variables}
    code = PROGRAM.format(before=before, after=after, noise=noise)
    done = forked_programs.run(code, environment, index)
    assert done.returncode == 0, done.stderr
    result, flags = json.loads(done.stdout)
    return result, flags, done.stderr


def loads(standard_error: str) -> int:
    return standard_error.count("XlaSerializedCacheEntry")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("programs/*/*") if path.is_file())


@pytest.fixture(scope="module")
def expected() -> str:
    """The result without any cache."""
    return run("off")[0]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program of a first process."""
    folder = tmp_path_factory.mktemp("cache") / "xla"
    _, flags, standard_error = run(folder)
    assert flags is None  # Other programs must not inherit the folder.
    assert loads(standard_error) == 0
    assert len(files(folder)) == 1
    assert list((folder / "staging").iterdir()) == []
    return folder


@needs_saving
def test_the_second_process_loads_the_program(filled: Path, expected: str) -> None:
    result, _, standard_error = run(filled)
    assert loads(standard_error) == 1
    assert result == expected
    assert len(files(filled)) == 1


@needs_saving
def test_what_tensorflow_says_about_loading_is_not_shown(filled: Path) -> None:
    _, _, standard_error = run(
        filled, noise="compilation_cache._LOADING_NOISE", after="import os; os.write(2, b'E0000 a true error\\n')"
    )
    assert loads(standard_error) == 0
    assert "AOT" not in standard_error
    assert "a true error" in standard_error


@needs_saving
def test_a_damaged_program_is_compiled_again(filled: Path, expected: str) -> None:
    [path] = files(filled)
    data = bytearray(path.read_bytes())
    middle = data.rindex(b"\x7fELF") + 200
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    result, _, standard_error = run(filled)
    assert loads(standard_error) == 0
    assert result == expected
    assert len(files(filled)) == 1
    assert loads(run(filled)[2]) == 1


@pytest.mark.parametrize("change", ["package", "tensorflow", "compiler", "flags", "processor", "cores"])
def test_programs_of_other_versions_and_machines_have_other_keys(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = compilation_cache._key()
    assert compilation_cache._key() == before
    match change:
        case "package":
            monkeypatch.setattr("ppo_agent.__version__", "999")
        case "tensorflow":
            monkeypatch.setattr(tf.version, "VERSION", "999")
        case "compiler":
            monkeypatch.setattr(tf.version, "COMPILER_VERSION", "999")
        case "flags":
            monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        case "processor":
            monkeypatch.setattr(compilation_cache, "_processor", lambda: {"model name": "another"})
        case "cores":
            monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(999)))
    assert compilation_cache._key() != before


@needs_saving
def test_programs_of_other_versions_are_not_loaded(filled: Path) -> None:
    assert loads(run(filled, "ppo_agent.__version__ = '999'")[2]) == 0


@needs_saving
@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path, expected: str) -> None:
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda index: run(tmp_path / "xla", index=index), range(2)))
    assert [result for result, _, _ in results] == [expected] * 2
    result, _, standard_error = run(tmp_path / "xla")
    assert result == expected
    assert loads(standard_error) == 1


@needs_saving
def test_a_program_that_cannot_be_saved_does_no_harm(tmp_path: Path, expected: str) -> None:
    folder = tmp_path / "xla"
    after = "staging = compilation_cache._process.cache._staging; os.rmdir(staging); open(staging, 'w').close()"
    assert run(folder, after=after)[0] == expected
    assert list((folder / "staging").iterdir()) == []
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    ("folder", "before", "variables"),
    [
        ("off", "", {}),
        ("/nowhere/xla", "compilation_cache.use('off')", {}),
        ("", "", {"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory="}),
    ],
)
def test_it_can_be_switched_off(folder: str, before: str, variables: dict[str, str], tmp_path: Path) -> None:
    _, flags, _ = run(folder, before, XDG_CACHE_HOME=str(tmp_path), **variables)
    assert list(tmp_path.iterdir()) == []
    assert flags == variables.get("TF_XLA_FLAGS")


@needs_saving
@pytest.mark.slow
def test_it_can_be_switched_off_late(tmp_path: Path, expected: str) -> None:
    assert run(tmp_path / "xla", after="compilation_cache.disable()")[0] == expected
    assert files(tmp_path / "xla") == []
    assert list((tmp_path / "xla" / "staging").iterdir()) == []


@needs_saving
def test_the_users_cache_folder_is_the_default(tmp_path: Path) -> None:
    _, flags, _ = run("", XDG_CACHE_HOME=str(tmp_path), TF_XLA_FLAGS="--tf_xla_clustering_debug=false")
    assert len(files(tmp_path / "ppo_agent" / "xla")) == 1
    assert flags == "--tf_xla_clustering_debug=false"


def test_a_folder_of_no_use_is_left_alone(tmp_path: Path, expected: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert run(tmp_path / "file")[0] == expected


@pytest.mark.skipif(CAN_SAVE, reason="is about older versions")
def test_older_versions_of_tensorflow_keep_nothing(tmp_path: Path, expected: str) -> None:
    assert run(tmp_path / "xla")[0] == expected
    assert not (tmp_path / "xla").exists()


def test_a_tensorflow_that_cannot_be_told_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorflow.python.client import pywrap_tf_session

    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    is_sound = compilation_cache._is_sound_here()
    monkeypatch.delattr(pywrap_tf_session, "TF_GetXlaConstantFoldingDisabled", raising=False)
    assert not compilation_cache._is_sound_here()
    if sys.platform == "linux" and CAN_SAVE:
        assert is_sound
