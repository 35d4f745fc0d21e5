"""The audit behind `make lint`, with a pip-audit that only pretends."""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOCK = """# made by hand
left-pad==1.0 \\
    --hash=sha256:00 \\
    --hash=sha256:11
    # via something
right-pad==2.0 ; python_full_version < '4' \\
    --hash=sha256:22
"""
CLEAN = [{"name": "left-pad", "version": "1.0", "vulns": []}, {"name": "right-pad", "version": "2.0", "vulns": []}]
VULNERABLE = [
    CLEAN[0],
    {
        "name": "right-pad",
        "version": "2.0",
        "vulns": [
            {"id": "PYSEC-1", "aliases": ["CVE-7"], "fix_versions": ["2.1", "3.0"], "description": "Long.\nText."},
            {"id": "PYSEC-2", "aliases": [], "fix_versions": []},
        ],
    },
]
SKIPPED = [{"name": "left-pad", "skip_reason": "not found"}, {"name": "right-pad", "skip_reason": "not found"}]


class Audit:
    """The script with files of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.folder, self.capsys = folder, capsys
        self.environment, self.lock = folder / "environment", folder / "lock.txt"
        self.module.TOOL_LOCK, self.module.IGNORED = folder / "audit.txt", folder / "audit.ignore"
        self.lock.write_text(LOCK)
        self.module.TOOL_LOCK.write_text("pip-audit==1")
        self.ignore("# nothing")
        (self.environment / "bin").mkdir(parents=True)
        (self.environment / "installed").write_text(hashlib.sha256(b"pip-audit==1").hexdigest())

    def ignore(self, text: str) -> None:
        self.module.IGNORED.write_text(text + "\n")

    def pretend(self, script: str) -> None:
        path = self.environment / "bin" / "pip-audit"
        path.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/log\n{script}\n')
        path.chmod(0o755)

    def answer(self, dependencies: list[dict]) -> None:
        (self.folder / "answer.json").write_text(json.dumps({"dependencies": dependencies, "fixes": []}))
        self.pretend(f"cat {self.folder}/answer.json; echo 'Found some.' >&2; exit 1")

    def calls(self) -> list[str]:
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def run(self) -> tuple[int, list[str]]:
        status = self.module.main(self.environment, [self.lock])
        return status, self.capsys.readouterr().out.splitlines()


@pytest.fixture
def audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Audit:
    return Audit(tmp_path, capsys)


def test_clean_and_not_asked_again_on_the_same_day(audit: Audit) -> None:
    audit.answer(CLEAN)
    assert audit.run() == (0, ["audit: no known vulnerability in 2 locked packages, 0 listed."])
    first, all_of_them = audit.calls()
    assert first.endswith(f"-r {audit.environment}/first.txt")
    assert all_of_them.endswith(f"-r {audit.lock}")
    assert "--disable-pip --require-hashes --format=json" in all_of_them
    assert audit.run() == (0, [])
    assert audit.calls() == []
    audit.lock.write_text(LOCK + "# changed\n")
    audit.run()
    assert len(audit.calls()) == 2


def test_first_package_alone(audit: Audit) -> None:
    audit.answer(CLEAN)
    audit.run()
    lines = (audit.environment / "first.txt").read_text().splitlines()
    assert lines == LOCK.splitlines()[1:4]


def test_what_is_found_is_shown_and_fails(audit: Audit) -> None:
    audit.answer(VULNERABLE)
    for _ in range(2):  # It is not forgotten on the second run.
        status, lines = audit.run()
        assert status == 1
        assert lines == [
            "audit: right-pad 2.0: PYSEC-1 = CVE-7, fixed in 2.1, 3.0",
            "audit: right-pad 2.0: PYSEC-2, fixed in no version yet",
            "audit: expected none but those listed, with a reason, in audit.ignore.",
        ]


def test_what_is_listed_with_a_reason_does_not_fail(audit: Audit) -> None:
    audit.answer(VULNERABLE)
    audit.ignore("CVE-7 not reached from here\nPYSEC-2")
    status, lines = audit.run()
    assert status == 1
    assert lines[:2] == [
        "audit: PYSEC-2 in audit.ignore has no reason.",
        "audit: right-pad 2.0: PYSEC-2, fixed in no version yet",
    ]
    audit.ignore("CVE-7 not reached from here\nPYSEC-2 the same\nPYSEC-3 of old")
    status, lines = audit.run()
    assert status == 0
    assert lines == [
        "audit: PYSEC-3 in audit.ignore is not found any more: remove it.",
        "audit: no known vulnerability in 2 locked packages, 2 listed.",
    ]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Traceback >&2; echo 'ConnectionError: no such host' >&2; exit 1", "ConnectionError: no such host"),
        ("exit 1", "it says nothing"),
        ("echo '{'", "it says nothing"),
        ("echo '[]'", "it says nothing"),
    ],
)
def test_unreachable_is_told_in_one_line_and_does_not_fail(audit: Audit, script: str, reason: str) -> None:
    audit.pretend(script)
    expected = f"audit: the locked packages were not audited: the service cannot be reached ({reason})."
    assert audit.run() == (0, [expected])
    assert len(audit.calls()) == 1


def test_a_service_that_knows_no_package_is_not_clean(audit: Audit) -> None:
    audit.answer(SKIPPED)
    message = "audit: the locked packages were not audited: the service knows nothing of left-pad, right-pad."
    for _ in range(2):
        assert audit.run() == (0, [message])
        assert len(audit.calls()) == 1


def test_packages_that_the_service_does_not_know_are_named_every_time(audit: Audit) -> None:
    audit.answer([CLEAN[0], SKIPPED[1]])
    for _ in range(2):
        status, lines = audit.run()
        assert status == 0
        assert lines == [
            "audit: the service knows nothing of right-pad.",
            "audit: no known vulnerability in 1 locked packages, 0 listed.",
        ]


def test_no_answer_in_time(audit: Audit) -> None:
    audit.pretend("exec sleep 20")
    audit.module.FIRST_TIME_LIMIT_S = 0.2
    assert audit.run() == (0, ["audit: the locked packages were not audited: no answer within 0 s."])


def test_a_tool_that_cannot_be_installed_is_told_in_one_line(audit: Audit) -> None:
    shutil.rmtree(audit.environment)
    python = audit.folder / "python"
    python.write_text(
        f'#!/bin/sh\nmkdir -p {audit.environment}/bin; cp "$0" {audit.environment}/bin/python\n'
        'case "$*" in *pip*) echo "ERROR: No matching distribution" >&2; exit 1;; esac\n'
    )
    python.chmod(0o755)
    audit.module.sys = type("sys", (), {"executable": str(python)})
    reason = "pip-audit cannot be installed (ERROR: No matching distribution)"
    assert audit.run() == (0, [f"audit: the locked packages were not audited: {reason}."])
    assert not (audit.environment / "installed").exists()


def test_the_peers_locked_packages_have_hashes() -> None:  # Those of the package itself: test_packaging.py.
    locks = list((ROOT / "benchmarks" / "requirements").glob("*.txt"))
    assert len(locks) >= 3
    for lock in locks:
        lines = lock.read_text(encoding="utf-8").splitlines()
        pinned = [number for number, line in enumerate(lines) if line[:1].isalnum()]
        assert pinned
        for number in pinned:
            assert "==" in lines[number], f"{lock.name}: {lines[number]}"
            assert lines[number + 1].strip().startswith("--hash=sha256:"), f"{lock.name}: {lines[number]}"
