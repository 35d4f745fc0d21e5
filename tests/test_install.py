"""The set-up script behind the make targets, run with interpreters that only pretend."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Answers the script's questions, writes down what it is asked to do, and makes the environment's bin/python.
PYTHON = """#!/bin/sh
case "$*" in
  *version_info*) echo {version} ;;
  *ensurepip*) exit {ensurepip} ;;
  "-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && touch "$4/pyvenv.cfg" && echo "venv {version}" >> log ;;
  *) echo "$*" >> log; exit {pip} ;;
esac
"""


class Checkout:
    """A copy of the files that the script reads, with a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "path"
        self.bin.mkdir()
        for tool in ("bash", "cat", "cksum", "cp", "dirname", "env", "ls", "mkdir", "rm", "sh", "touch"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        shutil.copytree(ROOT / "requirements", folder / "requirements")
        shutil.copy(ROOT / "setup.py", folder)

    def add_python(self, name: str, version: str, *, ensurepip: int = 0, pip: int = 0) -> Path:
        path = self.bin / name
        path.write_text(PYTHON.format(version=version, ensurepip=ensurepip, pip=pip))
        path.chmod(0o755)
        return path

    def add_shim(self, name: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\necho 'pyenv: {name}: command not found' >&2\nexit 127\n")
        (self.bin / name).chmod(0o755)

    def install(self, stack: str = "tf221", venv: str = "environment", python: str = "") -> tuple[int, str]:
        """Returns the exit status and what the script printed to standard error."""
        command = [str(self.folder / "requirements" / "install.sh"), stack, venv, python]
        environment = {"PATH": str(self.bin)}
        result = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return result.returncode, result.stderr

    def log(self) -> list[str]:
        """Returns what was done since the last call."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def stamps(self) -> set[str]:
        """Returns what the environment is marked as complete with."""
        return {path.name.removeprefix(".ppo_agent_") for path in (self.folder / "environment").glob(".ppo_agent_*")}


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_installs_the_locks_and_the_checkout(checkout: Checkout) -> None:
    checkout.add_python("python3.12", "3.12")
    assert checkout.install() == (0, "")
    made, build, lock, editable = checkout.log()
    assert made == "venv 3.12"
    assert build.endswith("install --no-deps --require-hashes -r requirements/build.txt")
    assert lock.endswith("install --no-deps --require-hashes --no-build-isolation -r requirements/tf221.txt")
    assert editable.endswith("install --no-deps --no-build-isolation --editable .")


def test_does_nothing_the_second_time(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.install()
    assert len(checkout.log()) == 4
    assert checkout.install() == (0, "")
    assert checkout.log() == []


@pytest.mark.parametrize(
    ("file", "steps"), [("requirements/tf221.txt", 4), ("requirements/build.txt", 4), ("setup.py", 1)]
)
def test_installs_again_when_a_file_changed(checkout: Checkout, file: str, steps: int) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.install()
    checkout.log()
    with (checkout.folder / file).open("a") as changed:
        changed.write("# changed\n")
    assert checkout.install() == (0, "")
    done = checkout.log()
    assert len(done) == steps
    assert done[-1].endswith("--editable .")


def test_a_touched_file_changes_nothing(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.install()
    checkout.log()
    os.utime(checkout.folder / "requirements" / "tf221.txt")
    checkout.install()
    assert checkout.log() == []


@pytest.mark.parametrize(("arguments", "made"), [({"stack": "tf215"}, "venv 3.11"), ({"python": "other"}, "venv 3.12")])
def test_installs_again_for_another_stack_or_interpreter(
    checkout: Checkout, arguments: dict[str, str], made: str
) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.add_python("other", "3.12")
    checkout.install()
    checkout.log()
    checkout.install(**arguments)
    assert checkout.log()[0] == made


def test_takes_the_first_interpreter_that_runs(checkout: Checkout) -> None:
    checkout.add_shim("python3.11")
    checkout.add_python("python3.12", "3.12")
    checkout.add_python("python3", "3.11")
    assert checkout.install() == (0, "")
    assert checkout.log()[0] == "venv 3.12"


def test_takes_plain_python3_if_its_version_fits(checkout: Checkout) -> None:
    checkout.add_python("python3", "3.13")
    assert checkout.install() == (0, "")
    assert checkout.log()[0] == "venv 3.13"


@pytest.mark.parametrize("version", [None, "3.10", "3.14"])
def test_no_suitable_python_gets_one_line(checkout: Checkout, version: str | None) -> None:
    checkout.add_shim("python3.11")
    if version:
        checkout.add_python("python3", version)
    message = (
        "install: no suitable Python was found: STACK=tf221 needs Python 3.11, 3.12, 3.13 on PATH, "
        "or its path in PYTHON=.\n"
    )
    assert checkout.install() == (1, message)
    assert not (checkout.folder / "environment").exists()


def test_wrong_python_gets_one_line(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.add_python("python3.12", "3.12")
    status, message = checkout.install(stack="tf215", python="python3.12")
    assert (status, message) == (1, "install: PYTHON=python3.12 is Python 3.12: STACK=tf215 needs Python 3.11.\n")
    status, message = checkout.install(python="nowhere/python")
    assert status == 1
    assert message.startswith("install: PYTHON=nowhere/python does not run: STACK=tf221 needs Python 3.11, 3.12")


def test_python_without_venv_gets_one_line(checkout: Checkout) -> None:
    python = checkout.add_python("python3.12", "3.12", ensurepip=1)
    status, message = checkout.install()
    assert status == 1
    assert message.startswith(f"install: {python} cannot make virtual environments: install its venv module")
    assert message.count("\n") == 1


def test_unknown_stack_gets_one_line(checkout: Checkout) -> None:
    message = "install: STACK=tf9 is unknown: expected tf221 (Python 3.11 to 3.13) or tf215 (Python 3.11).\n"
    assert checkout.install(stack="tf9") == (1, message)


def test_a_folder_of_something_else_is_left_alone(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    (checkout.folder / "environment").mkdir()
    (checkout.folder / "environment" / "thesis.tex").touch()
    status, message = checkout.install()
    assert status == 1
    assert message.startswith("install: VENV=environment holds something that is not a virtual environment")
    assert (checkout.folder / "environment" / "thesis.tex").exists()


def test_a_failed_installation_is_not_taken_for_a_good_one(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11", pip=1)
    status, _ = checkout.install()
    assert status == 1
    assert checkout.stamps() == set()
    assert len(checkout.log()) == 2
    checkout.add_python("python3.11", "3.11")
    assert checkout.install() == (0, "")
    assert checkout.stamps() == {"lock", "setup"}


@pytest.mark.parametrize(("file", "left"), [("requirements/tf221.txt", set()), ("setup.py", {"lock"})])
def test_a_failed_renewal_is_not_taken_for_a_good_one(checkout: Checkout, file: str, left: set[str]) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.install()
    failing = checkout.add_python("python3.11", "3.11", pip=1)
    shutil.copy(failing, checkout.folder / "environment" / "bin" / "python")
    with (checkout.folder / file).open("a") as changed:
        changed.write("# changed\n")
    assert checkout.install()[0] == 1
    assert checkout.stamps() == left


def test_a_refused_request_leaves_the_environment_as_it_is(checkout: Checkout) -> None:
    checkout.add_python("python3.11", "3.11")
    checkout.install()
    assert checkout.install(python="nowhere/python")[0] == 1
    assert checkout.stamps() == {"lock", "setup"}
