"""The distribution: metadata, the wheel, and lock files that agree with setup.py."""

import importlib
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import tensorflow as tf
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ppo_agent

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
LOCKS = sorted(path.name for path in REQUIREMENTS.glob("*.txt") if "overrides" not in path.name)
STACK = "tf" + "".join(tf.__version__.split(".")[:2])

# Parts of a lock file's entry: a requirement, then an indented line for each hash, joined by backslashes.
ENTRY = re.compile(r"^[A-Za-z0-9].*(?:(?<=\\)\n.*)*", re.MULTILINE)
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(lock: str) -> list[str]:
    return ENTRY.findall((REQUIREMENTS / lock).read_text())


def pins(lock: str, **environment: str) -> dict[str, str]:
    """Returns the locked versions by package, of the entries whose markers hold."""
    requirements = [Requirement(entry.split("\\")[0].split("--hash")[0]) for entry in entries(lock)]
    holding = [item for item in requirements if item.marker is None or item.marker.evaluate(dict(environment))]
    return {canonicalize_name(item.name): str(item.specifier).removeprefix("==") for item in holding}


def required(distribution: str, **environment: str) -> list[Requirement]:
    """Returns what an installed distribution requires where the markers hold; no extras unless given."""
    requirements = [Requirement(text) for text in metadata.requires(distribution) or []]
    environment = {"extra": "", **environment}
    return [item for item in requirements if item.marker is None or item.marker.evaluate(environment)]


def test_version_is_the_distributions() -> None:
    assert ppo_agent.__version__ == metadata.version("ppo_agent")


@pytest.mark.parametrize("command", ["ppo-train", "ppo-eval", "ppo-export", "ppo-plot", "ppo-sweep"])
def test_commands_are_installed(command: str) -> None:
    (entry_point,) = metadata.entry_points(group="console_scripts", name=command)
    assert callable(entry_point.load())


def test_public_names_are_there() -> None:
    for name in ppo_agent.__all__:
        assert getattr(ppo_agent, name) is not None
    assert set(ppo_agent.__all__) <= set(dir(ppo_agent))


@pytest.mark.parametrize("first", ["from ppo_agent.learner import compilation", "from ppo_agent import PPOLossInfo"])
def test_any_name_may_be_imported_first(first: str) -> None:
    code = f"{first}; import gin; gin.bind_parameter('PPOAgent.num_epochs', 3); from ppo_agent import PPOAgent"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ppo_agent' has no attribute 'PPO2'"):
        _ = ppo_agent.PPO2


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_and_hashes_everything(lock: str) -> None:
    assert entries(lock)
    for entry in entries(lock):
        assert re.match(r"[a-z0-9-]+==[^ ]+ ", entry)
        assert HASH.search(entry)
    assert "://" not in (REQUIREMENTS / lock).read_text()


@pytest.mark.parametrize(("lock", "python"), [("tf215.txt", "3.11"), ("tf221.txt", "3.12"), ("tf221.txt", "3.13")])
@pytest.mark.parametrize("extra", ["", "mujoco", "box2d", "atari", "video", "dev"])
def test_lock_satisfies_setup(lock: str, python: str, extra: str) -> None:
    marker_values = {"python_version": python, "python_full_version": f"{python}.0"}
    locked = pins(lock, **marker_values)
    for requirement in required("ppo_agent", extra=extra, **marker_values):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("python", ["3.12", "3.13"])
@pytest.mark.parametrize("extra", ["data", "envpool", "onnx", "search", "serve", "tflite"])
def test_newer_stack_has_all_extras(python: str, extra: str) -> None:
    test_lock_satisfies_setup("tf221.txt", python, extra)


@pytest.mark.parametrize("lock", [f"{STACK}.txt", f"{STACK}-tensorflow-only.txt", "build.txt"])
def test_lock_is_complete(lock: str) -> None:
    """Locks are installed without dependencies, so what a locked package requires must be locked too."""
    locked = pins(lock)
    replaced = {"pygame-ce", "backports-strenum"}  # by pygame, see setup.py; by Python itself, see tf221-overrides.txt
    for distribution in locked:
        names = {canonicalize_name(requirement.name) for requirement in required(distribution)}
        assert names - replaced <= set(locked), distribution


def test_tensorflow_only_lock_is_part_of_the_stack() -> None:
    small = pins(f"{STACK}-tensorflow-only.txt")
    assert small.items() <= pins(f"{STACK}.txt").items()
    assert not {"tf-agents", "tensorflow-probability", "tf-keras", "gymnasium"} & set(small)


def test_environment_is_what_the_lock_says() -> None:
    locked = pins(f"{STACK}.txt")
    assert {name: metadata.version(name) for name in locked} == locked


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy of the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for folder in ("ppo_agent", "networks", "drivers"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / file, copy)
    pip = [sys.executable, "-m", "pip", "-qq", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(copy / "dist"), str(copy)], check=True, cwd=copy)
    (path,) = (copy / "dist").iterdir()
    return path


def test_wheel_holds_one_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = [("ppo_agent", "ppo_agent"), ("networks", "ppo_agent/networks"), ("drivers", "ppo_agent/drivers")]
    expected = {
        f"{target}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, target in sources
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name for name in names if ".dist-info/" not in name} == expected | {"ppo_agent/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_can_be_published(wheel: Path) -> None:
    pytest.importorskip("twine")
    command = [sys.executable, "-m", "twine", "check", "--strict", str(wheel)]
    checked = subprocess.run(command, check=False, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == {
        "ppo_agent"
    }


def test_installed_packages_are_found(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "import importlib.util as u; print(u.find_spec('ppo_agent.networks').origin)"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert Path(found.stdout.strip()) == tmp_path / "ppo_agent" / "networks" / "__init__.py"


def test_subpackages_are_the_top_level_folders() -> None:
    for name in ("networks", "drivers"):
        module = importlib.import_module(f"ppo_agent.{name}")
        assert Path(str(module.__file__)).parent == ROOT / name


def test_tensorflow_only_environment_has_no_tf_agents(tensorflow_only_python: Path) -> None:
    command = [str(tensorflow_only_python), "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    installed = {canonicalize_name(line.split("==")[0]) for line in listed.splitlines()}
    assert installed - {"pip"} == set(pins(f"{STACK}-tensorflow-only.txt"))
