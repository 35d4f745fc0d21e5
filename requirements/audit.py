"""Tells which locked packages have known vulnerabilities: requirements/audit.py ENVIRONMENT LOCK...

pip-audit is installed into ENVIRONMENT on first use, from its own lock file, and asks PyPI about every version in the
lock files. Where it cannot be installed, or the service cannot be reached, one line says so and the exit status is 0:
a machine without network can still check its code. What is found is shown and makes the exit status 1, because what
does not fail is not read; what cannot be helped is listed with its reason in audit.ignore. A clean answer holds for
the day.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOOL_LOCK, IGNORED = HERE / "audit.txt", HERE / "audit.ignore"
TIME_LIMIT_S = 60
FIRST_TIME_LIMIT_S = 10
INSTALL_TIME_LIMIT_S = 300


class NotAuditedError(Exception):
    """Why there is no answer."""


def main(environment: Path, locks: Sequence[Path]) -> int:
    """Audits the lock files; returns the exit status."""
    stamp, recipe = environment / "clean", _recipe([*locks, IGNORED])
    if stamp.exists() and stamp.read_text(encoding="utf-8") == recipe:
        return 0
    try:
        _install(environment)
        # One package first: where nothing is known of it, nothing is asked about all others.
        _ask(environment, [_first_requirement(locks[0], environment)], FIRST_TIME_LIMIT_S)
        answer = _ask(environment, locks, TIME_LIMIT_S)
    except NotAuditedError as reason:
        print(f"audit: the locked packages were not audited: {reason}.")
        return 0
    unknown = [d["name"] for d in answer if "skip_reason" in d]
    if unknown:
        print(f"audit: the service knows nothing of {', '.join(unknown)}.")
    found = list(_vulnerabilities(answer))
    unlisted = _without_listed(found)
    for _, line in unlisted:
        print(f"audit: {line}")
    if unlisted:
        print(f"audit: expected none but those listed, with a reason, in {IGNORED.name}.")
        return 1
    print(f"audit: no known vulnerability in {len(answer) - len(unknown)} locked packages, {len(found)} listed.")
    if not unknown:
        stamp.write_text(recipe, encoding="utf-8")
    return 0


def _recipe(files: Sequence[Path]) -> str:
    """What a clean answer holds for."""
    contents = b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return f"{dt.date.today()} {hashlib.sha256(contents).hexdigest()}"


def _install(environment: Path) -> None:
    """Installs pip-audit, unless this version is there."""
    done, recipe = environment / "installed", hashlib.sha256(TOOL_LOCK.read_bytes()).hexdigest()
    if done.exists() and done.read_text(encoding="utf-8") == recipe:
        return
    pip = [str(environment / "bin" / "python"), "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"]
    steps = (
        [sys.executable, "-m", "venv", "--clear", str(environment)],
        [*pip, "install", "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(TOOL_LOCK)],
    )
    for step in steps:
        result = _run(step, INSTALL_TIME_LIMIT_S)
        if result.returncode:
            raise NotAuditedError(f"pip-audit cannot be installed ({_last_line(result.stderr)})")
    done.write_text(recipe, encoding="utf-8")


def _first_requirement(lock: Path, environment: Path) -> Path:
    """A lock file of the first package alone."""
    text = lock.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    end = next((i for i, line in enumerate(lines) if not line.endswith("\\")), len(lines))
    path = environment / "first.txt"
    path.write_text("\n".join(lines[: end + 1]) + "\n", encoding="utf-8")
    return path


def _ask(environment: Path, locks: Sequence[Path], time_limit_s: float) -> list[dict[str, Any]]:
    """What the service knows: a dict for every package, with `vulns` or with `skip_reason`."""
    options = ["--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off", "--timeout=5"]
    files = [part for lock in locks for part in ("-r", str(lock))]
    result = _run([str(environment / "bin" / "pip-audit"), *options, *files], time_limit_s)
    try:
        answer = json.loads(result.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotAuditedError(f"the service cannot be reached ({_last_line(result.stderr)})") from error
    if not any("vulns" in dependency for dependency in answer):
        raise NotAuditedError(f"the service knows nothing of {', '.join(d['name'] for d in answer[:3])}")
    return answer


def _run(command: Sequence[str], time_limit_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit_s)
    except subprocess.TimeoutExpired as error:
        raise NotAuditedError(f"no answer within {time_limit_s:.0f} s") from error
    except OSError as error:
        raise NotAuditedError(f"{command[0]}: {error.strerror}") from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "it says nothing"


def _vulnerabilities(answer: Sequence[dict[str, Any]]) -> Iterator[tuple[set[str], str]]:
    """Yields the ids of each vulnerability, and a line about it."""
    for dependency in answer:
        for found in dependency.get("vulns", ()):
            ids = [found["id"], *found.get("aliases", ())]
            fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
            yield set(ids), f"{dependency['name']} {dependency['version']}: {' = '.join(ids)}, fixed in {fixed}"


def _without_listed(found: Sequence[tuple[set[str], str]]) -> list[tuple[set[str], str]]:
    """What is not in the list; what is listed in vain is told."""
    lines = (line.split(maxsplit=1) for line in IGNORED.read_text(encoding="utf-8").splitlines())
    entries = {words[0]: words[1:] for words in lines if words and not words[0].startswith("#")}
    for name, reason in entries.items():
        if not any(name in ids for ids, _ in found):
            print(f"audit: {name} in {IGNORED.name} is not found any more: remove it.")
        elif not reason:
            print(f"audit: {name} in {IGNORED.name} has no reason.")
    listed = {name for name, reason in entries.items() if reason}
    return [(ids, line) for ids, line in found if not ids & listed]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]]))
