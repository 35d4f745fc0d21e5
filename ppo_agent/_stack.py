"""Prepares the process for TensorFlow and TF-Agents; `import ppo_agent` calls it before anything else.

TF-Agents needs Keras 2. TensorFlow 2.15 has it; TensorFlow 2.16 and later take it from the package tf-keras if the
environment variable TF_USE_LEGACY_KERAS is 1 at the time that TensorFlow is imported. On TensorFlow 2.15 the same
variable must not be set.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import abc, machinery, metadata, util
from pathlib import Path
from types import ModuleType

from ppo_agent.common import compilation_cache
from ppo_agent.common.stderr_noise import without_lines

TF_AGENTS_VERSION = "0.19.0"
LEGACY_KERAS = "TF_USE_LEGACY_KERAS"

# Where this package lies if it is not installed, and what of it lies beside its own folder there.
_CHECKOUT = Path(__file__).parents[1]
_MAPPED = ("networks", "drivers")

# The distributions that install the module `tensorflow`.
_TENSORFLOW_DISTRIBUTIONS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel", "tensorflow-macos", "tf-nightly")

# What TensorFlow writes to standard error while it is loaded, whatever TF_CPP_MIN_LOG_LEVEL says: absl's information
# lines, errors of TensorFlow 2.15 that come with every start, and the search for a GPU on a machine without a driver.
_LOADING_NOISE = re.compile(
    rb"I\d{4} |WARNING: All log messages before absl::InitializeLog|To enable the following instructions: "
    rb"|.* Unable to register cu(DNN|FFT|BLAS) factory: |E\d{4} .* failed call to cuInit: "
)
_NVIDIA_DRIVERS = ("/proc/driver/nvidia", "/dev/dxg")  # Linux; Windows' subsystem for Linux


def prepare() -> None:
    """Sets the environment variables that TensorFlow and TF-Agents read when they are imported.

    Raises:
        ImportError: A package is missing, or TensorFlow was imported before with the wrong Keras. The message is one
            sentence that says what to do.
    """
    version = _tensorflow_version()
    separate_keras = version >= (2, 16)
    _require("tensorflow_probability", "pip install tensorflow-probability")
    if separate_keras:
        _require("tf_keras", f"pip install 'tf-keras=={version[0]}.{version[1]}.*'")
    dependencies = "--no-deps " if separate_keras else ""
    _require("tf_agents", f"pip install {dependencies}tf-agents=={TF_AGENTS_VERSION}")
    if "tensorflow" in sys.modules:
        _check_imported_keras(separate_keras)
    elif separate_keras:
        os.environ[LEGACY_KERAS] = "1"
    else:
        os.environ.pop(LEGACY_KERAS, None)
    _quieten()


def _tensorflow_version() -> tuple[int, int]:
    """Returns (major, minor) of the installed TensorFlow without importing it."""
    for distribution in _TENSORFLOW_DISTRIBUTIONS:
        try:
            major, minor = metadata.version(distribution).split(".")[:2]
        except metadata.PackageNotFoundError:
            continue
        return int(major), int(minor)
    raise _missing("tensorflow", "pip install tensorflow")


def _require(module: str, command: str) -> None:
    try:
        found = util.find_spec(module) is not None
    except ImportError:
        found = False
    if not found:
        raise _missing(module, command)


def _missing(module: str, command: str) -> ImportError:
    return ImportError(f"ppo_agent needs {module}, which is not installed: run `{command}`.", name=module)


def _check_imported_keras(separate_keras: bool) -> None:
    """Raises ImportError if the TensorFlow that was imported before ppo_agent does not use Keras 2."""
    tensorflow = sys.modules["tensorflow"]
    try:
        # tf.keras is looked up on first use, tf.losses was bound when TensorFlow was imported: both must fit.
        packages = {owner.Loss.__module__.partition(".")[0] for owner in (tensorflow.keras.losses, tensorflow.losses)}
    except (AttributeError, ImportError):
        packages = set()
    if packages and (packages == {"tf_keras"} or not separate_keras):
        return
    setting = f"set {LEGACY_KERAS}=1" if separate_keras else f"unset {LEGACY_KERAS}"
    raise ImportError(
        "tensorflow was imported before ppo_agent and without Keras 2, which TF-Agents needs: "
        f"import ppo_agent before tensorflow, or {setting} in the environment before Python starts."
    )


def _quieten() -> None:
    """Turns off the greetings of TensorFlow, pygame and gym unless the user asked for TensorFlow's."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        from gym_notices import notices
    except ImportError:
        return
    # gym 0.23.0, which TF-Agents imports, prints its entry; it names gymnasium, which ppo_agent uses already.
    notices.notices.pop("0.23.0", None)


class _MappedPackages(abc.MetaPathFinder):
    """Finds networks/ and drivers/ beside this folder, which setup.py maps into the package when it is installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> machinery.ModuleSpec | None:
        """Returns the spec of one of the two, None for everything else."""
        del path, target
        package, _, folder = name.rpartition(".")
        if package != __package__ or folder not in _MAPPED:
            return None
        where = _CHECKOUT / folder
        return util.spec_from_file_location(name, where / "__init__.py", submodule_search_locations=[str(where)])


def find_mapped_packages() -> None:
    """Makes `python -m ppo_agent.train` work in a checkout, where it takes this folder instead of an installed copy."""
    if all((_CHECKOUT / name).is_file() for name in ("setup.py", *(f"{folder}/__init__.py" for folder in _MAPPED))):
        sys.meta_path.append(_MappedPackages())


def import_tensorflow() -> None:
    """Imports TensorFlow without the lines that it writes to standard error whenever it is loaded.

    For programs, which own their standard error: the descriptor is redirected while TensorFlow is loaded, and what is
    not known to be noise is written to it afterwards. TF_CPP_MIN_LOG_LEVEL=0 in the environment lets everything pass.
    """
    everything = os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0"
    with nullcontext() if everything or "tensorflow" in sys.modules else without_lines(_LOADING_NOISE):
        tensorflow = importlib.import_module("tensorflow")
        compilation_cache.start()
        if not any(map(os.path.exists, _NVIDIA_DRIVERS)):
            # The search for a GPU fails loudly where there can be none: it is made now, while nobody listens.
            tensorflow.config.list_physical_devices()
