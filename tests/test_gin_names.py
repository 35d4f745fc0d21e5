"""gin files as TF-Agents' users have them configure the class that a program makes, whichever package it is from."""

import subprocess
import sys
from pathlib import Path

import gin
import helpers
import pytest
from tf_agents.agents.ppo import ppo_agent as theirs
from tf_agents.agents.ppo import ppo_clip_agent as their_clip_agent
from tf_agents.agents.ppo import ppo_kl_penalty_agent as their_kl_penalty_agent

import ppo_agent

FILE = """
import {module}
PPOAgent.num_epochs = 3
ppo_agent.PPOAgent.use_gae = True
tf_agents.agents.ppo.ppo_agent.PPOAgent.lambda_value = 0.5
PPOClipAgent.num_epochs = 7
ppo_clip_agent.PPOClipAgent.importance_ratio_clipping = 0.3
PPOKLPenaltyAgent.adaptive_kl_target = 0.25
scope/PPOAgent.num_epochs = 11
"""


@pytest.fixture(autouse=True)
def no_config():
    yield
    gin.clear_config()


def make(cls, **keywords):
    keywords = {"optimizer": helpers.tf.keras.optimizers.Adam(), **keywords}
    actor_net, value_net = helpers.make_networks("legacy")
    return cls(helpers.TIME_STEP, helpers.CONTINUOUS, actor_net=actor_net, value_net=value_net, **keywords)


@pytest.mark.parametrize("module", ["ppo_agent", "tf_agents.agents.ppo.ppo_agent"])
def test_a_gin_file_configures_both(module):
    gin.parse_config(FILE.format(module=module))
    for cls in (ppo_agent.PPOAgent, theirs.PPOAgent):
        agent = make(cls)
        assert (agent._num_epochs, agent._use_gae, agent._lambda) == (3, True, 0.5)
        assert make(cls, num_epochs=5)._num_epochs == 5  # What the program says counts more, as everywhere in gin.
        with gin.config_scope("scope"):
            assert make(cls)._num_epochs == 11
    for cls in (ppo_agent.PPOClipAgent, their_clip_agent.PPOClipAgent):
        agent = make(cls)
        assert (agent._num_epochs, agent._use_gae, agent._importance_ratio_clipping) == (7, False, 0.3)
    for cls in (ppo_agent.PPOKLPenaltyAgent, their_kl_penalty_agent.PPOKLPenaltyAgent):
        keywords = {"num_epochs": 1, "initial_adaptive_kl_beta": 1.0, "adaptive_kl_tolerance": 0.1}
        assert make(cls, **keywords)._adaptive_kl_target == 0.25


def test_new_keywords_and_subclasses_are_configured_too():
    @gin.configurable
    class OwnAgent(ppo_agent.PPOAgent):
        def __init__(self, *arguments, factor=1.0, **keywords):
            super().__init__(*arguments, **keywords)
            self.factor = factor

    gin.parse_config("PPOAgent.minibatch_size = 32\nOwnAgent.factor = 2.0\nPPOPolicy.clip = False")
    agent = make(OwnAgent)
    assert (agent.factor, agent._config.minibatch_size) == (2.0, 32)


def test_a_reference_makes_ours():
    @gin.configurable
    def build(agent_class=None):
        return make(agent_class)

    gin.parse_config("build.agent_class = @ppo_agent.PPOAgent\nPPOAgent.num_epochs = 2")
    agent = build()
    assert isinstance(agent, ppo_agent.PPOAgent)
    assert agent._num_epochs == 2


def test_a_keyword_that_there_is_not():
    with pytest.raises(ValueError, match="num_epoch"):
        gin.parse_config("PPOAgent.num_epoch = 3")


def test_without_values_errors_are_one_sentence():
    with pytest.raises(ValueError, match=r"num_epochs is 0, expected an integer of at least 1\.$"):
        make(ppo_agent.PPOAgent, num_epochs=0)


PROGRAM = """
{imports}
gin.parse_config("import ppo_agent\\nPPOAgent.num_epochs = 3")
import helpers
nets = helpers.make_networks()
agent = ppo_agent.PPOAgent(helpers.TIME_STEP, helpers.CONTINUOUS, None, *nets)
assert agent._num_epochs == 3
"""
ORDERS = [
    "import gin, ppo_agent",
    "import ppo_agent, gin",
    "import ppo_agent.networks, gin",
    "import ppo_agent; from ppo_agent import PPOAgent; import gin",
    "import ppo_agent.agent, gin",
    "import ppo_agent, tf_agents.networks, gin",
]


@pytest.mark.slow
@pytest.mark.parametrize("imports", ORDERS)
def test_in_whatever_order_things_are_imported(imports, tmp_path):
    path = Path(__file__).parent
    program = f"import sys; sys.path.append({str(path)!r})" + PROGRAM.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_does_not_import_tensorflow():
    program = "import ppo_agent, sys; assert not {'tensorflow', 'gin', 'tf_agents'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
