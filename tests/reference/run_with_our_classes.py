"""Runs a test module of TF-Agents with this package's classes in place of its own; a program for a subprocess.

Usage: run_with_our_classes.py MODULE [unittest arguments]. Copies of TF-Agents' modules that name our classes are put
into `sys.modules` before the test module is loaded: patching its classes in place would recurse through `super()`.
"""

import importlib
import sys
import types
import unittest

import ppo_agent  # isort: skip

import tf_agents.agents.ppo as package
from tf_agents.agents.ppo import ppo_agent as agent_module
from tf_agents.agents.ppo import ppo_clip_agent as clip_module
from tf_agents.agents.ppo import ppo_kl_penalty_agent as kl_module
from tf_agents.agents.ppo import ppo_policy as policy_module

REPLACED = {
    agent_module: {"PPOAgent": ppo_agent.PPOAgent, "PPOLossInfo": ppo_agent.PPOLossInfo},
    clip_module: {"PPOClipAgent": ppo_agent.PPOClipAgent},
    kl_module: {"PPOKLPenaltyAgent": ppo_agent.PPOKLPenaltyAgent},
    policy_module: {"PPOPolicy": ppo_agent.PPOPolicy},
}


def replace_modules():
    for module, classes in REPLACED.items():
        copy = types.ModuleType(module.__name__)
        copy.__dict__.update(module.__dict__, **classes)
        sys.modules[module.__name__] = copy
        setattr(package, module.__name__.rpartition(".")[2], copy)


def main():
    replace_modules()
    name = sys.argv.pop(1)
    tests = importlib.import_module(name)
    # unittest looks for tests in the main module.
    for attribute, value in vars(tests).items():
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            globals()[attribute] = value
    import tensorflow as tf
    from tf_agents.system import multiprocessing

    if "learner" in name:
        multiprocessing.handle_test_main(tf.test.main)
    else:
        tf.test.main()


if __name__ == "__main__":
    main()
