"""Tells how many cases the properties were tried with."""

import pytest
import strategies


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if strategies.CASES:
        total = sum(strategies.CASES.values())
        terminalreporter.write_line(f"{len(strategies.CASES)} properties were tried with {total:,} cases.")
