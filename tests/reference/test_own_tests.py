"""TF-Agents' own tests of PPO, which its wheel ships, pass with this package's classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_with_our_classes.py")


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("tf_agents.agents.ppo.ppo_policy_test", 19),
        ("tf_agents.agents.ppo.ppo_agent_test", 69),
        ("tf_agents.train.ppo_learner_test", 12),
    ],
)
def test_tf_agents_own_tests_pass(module, number, tmp_path):
    arguments = [sys.executable, str(RUNNER), module, f"--test_tmpdir={tmp_path}"]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    result = subprocess.run(
        arguments, capture_output=True, text=True, timeout=400, check=False, env=environment, cwd=tmp_path
    )
    report = result.stderr[-5000:]
    assert result.returncode == 0, report
    ran = int(re.search(r"Ran (\d+) tests?", result.stderr).group(1))
    skipped = int(re.search(r"OK(?: \(skipped=(\d+)\))?", result.stderr).group(1) or 0)
    assert ran - skipped >= number, report
