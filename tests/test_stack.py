"""`import ppo_agent` gives TF-Agents the Keras it needs, or says in one sentence what to do."""

import os
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import pytest
import tensorflow as tf

from ppo_agent import _stack

SEPARATE_KERAS = tuple(int(part) for part in tf.__version__.split(".")[:2]) >= (2, 16)


def run(code: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter; a variable that is None is removed from its environment."""
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": None, **variables}
    kept = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=kept, check=False)


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_variable_is_set_for_the_installed_tensorflow(before: str | None) -> None:
    code = "import os, sys, ppo_agent; print(os.environ.get('TF_USE_LEGACY_KERAS'), 'tensorflow' in sys.modules)"
    result = run(code, TF_USE_LEGACY_KERAS=before)
    assert result.stdout.split() == ["1" if SEPARATE_KERAS else "None", "False"]
    assert result.stderr == ""


def test_the_package_alone_loads_no_tensorflow() -> None:
    result = run("import sys, ppo_agent; print('tensorflow' in sys.modules, 'ppo_agent.agent' in sys.modules)")
    assert result.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("variable", [None, "1"])
def test_tensorflow_imported_first(variable: str | None) -> None:
    result = run("import tensorflow, ppo_agent; print('fine')", TF_USE_LEGACY_KERAS=variable)
    if (variable == "1") == SEPARATE_KERAS:
        assert result.stdout.split() == ["fine"]
    else:
        remedy = "set TF_USE_LEGACY_KERAS=1" if SEPARATE_KERAS else "unset TF_USE_LEGACY_KERAS"
        assert result.returncode == 1
        assert last_line(result).startswith("ImportError: tensorflow was imported before ppo_agent and without Keras 2")
        assert remedy in last_line(result)


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("tf_agents", f"pip install {'--no-deps ' if SEPARATE_KERAS else ''}tf-agents==0.19.0"),
        ("tensorflow_probability", "pip install tensorflow-probability"),
    ],
)
def test_missing_module_names_the_command(monkeypatch: pytest.MonkeyPatch, module: str, command: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        _stack.prepare()
    assert str(error.value) == f"ppo_agent needs {module}, which is not installed: run `{command}`."
    assert error.value.name == module


def test_missing_tf_agents_stops_the_import() -> None:
    result = run("import sys; sys.modules['tf_agents'] = None; import ppo_agent")
    assert result.returncode == 1
    assert last_line(result).startswith("ImportError: ppo_agent needs tf_agents, which is not installed: run `pip")


@pytest.mark.parametrize("module", ["tf_keras", "tf_agents"])
def test_new_tensorflow_needs_these_modules(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "2.19.1")
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == module else object())
    command = {"tf_keras": "pip install 'tf-keras==2.19.*'", "tf_agents": "pip install --no-deps tf-agents==0.19.0"}
    with pytest.raises(ImportError, match="which is not installed") as error:
        _stack.prepare()
    assert command[module] in str(error.value)


def test_missing_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ImportError, match="ppo_agent needs tensorflow, which is not installed: run `pip install tens"):
        _stack.prepare()


@pytest.mark.parametrize("level", [None, "0"])
def test_only_noise_is_dropped_while_tensorflow_is_loaded(tmp_path: Path, level: str | None) -> None:
    noise = [
        "I0000 00:00:1795259241.792873    6769 port.cc:153] oneDNN custom operations are on.",
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.",
        "E0000 00:00:1795260636.923951   18667 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)",
        "2026-11-21 11:09:17.5: E external/cuda_dnn.cc:9261] Unable to register cuDNN factory: Attempting to",
    ]
    lines = [noise[0], "E0000 a real error", *noise[1:], "Traceback"]
    written = "".join(f"{line}\n" for line in lines).encode()
    fake = f"import os, types\nos.write(2, {written!r})\nconfig = types.SimpleNamespace(list_physical_devices=list)\n"
    (tmp_path / "tensorflow.py").write_text(fake)
    code = "from ppo_agent import _stack; _stack.import_tensorflow()"
    result = run(code, PYTHONPATH=str(tmp_path), TF_CPP_MIN_LOG_LEVEL=level)
    assert result.stderr.splitlines() == (lines if level == "0" else ["E0000 a real error", "Traceback"])


def test_users_log_level_is_kept() -> None:
    result = run("import os, ppo_agent; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])", TF_CPP_MIN_LOG_LEVEL="1")
    assert result.stdout.split() == ["1"]


def test_gym_and_pygame_are_silent() -> None:
    result = run("import ppo_agent, gym, pygame")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
