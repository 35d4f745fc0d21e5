"""gin files as TF-Agents' users have them configure the class that a program makes, whichever package it is from."""

import subprocess
import sys
from pathlib import Path

import gin
import helpers
import numpy as np
import pytest
from tf_agents.agents.ppo import ppo_agent as theirs
from tf_agents.agents.ppo import ppo_clip_agent as their_clip_agent
from tf_agents.agents.ppo import ppo_kl_penalty_agent as their_kl_penalty_agent
from tf_agents.drivers import dynamic_step_driver
from tf_agents.networks import value_network

import ppo_agent
from ppo_agent import drivers, networks

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


LEFTOVER = """
import warnings
warnings.simplefilter("ignore")
import ppo_agent
ours = ppo_agent.PPOAgent
from tf_agents.agents import PPOClipAgent
from tf_agents.agents.ppo import ppo_agent
import helpers
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for cls in (ours, PPOClipAgent, ppo_agent.PPOAgent):
        actor_net, value_net = helpers.make_networks("legacy")
        optimizer = helpers.tf.keras.optimizers.Adam()
        cls(helpers.TIME_STEP, helpers.CONTINUOUS, optimizer, actor_net, value_net)
print(*(str(each.message) for each in caught if "TF-Agents" in str(each.message)), sep="\\n")
"""


def test_a_leftover_import_is_told_once(tmp_path):
    path = Path(__file__).parent
    program = f"import sys; sys.path.append({str(path)!r})" + LEFTOVER
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (told,) = done.stdout.splitlines()
    assert told.startswith("PPOClipAgent is one of TF-Agents' PPO, expected one of this package's")
    assert told.endswith("does `from tf_agents.agents.ppo import ppo_agent` hide `import ppo_agent`?")


def test_networks_drivers_and_environments_are_configured():
    gin.parse_config(
        """
        PPOActorNetwork.fc_layers = (5,)
        ppo_agent.networks.PPOValueNetwork.fc_layers = (6, 7)
        shared_networks.fc_layers = (8,)
        ValueNetwork.fc_layer_params = (9,)
        GymnasiumEnvironment.num_environments = 3
        UniformReplayBuffer.max_length = 11
        DynamicStepDriver.num_steps = 12
        tf_agents.drivers.dynamic_episode_driver.DynamicEpisodeDriver.num_episodes = 4
        """
    )
    observation = helpers.TIME_STEP.observation
    actor = networks.ActorNetwork(observation, helpers.CONTINUOUS)
    values = networks.ValueNetwork(observation)
    torso, _ = networks.shared_networks(observation, helpers.CONTINUOUS)
    theirs_ = value_network.ValueNetwork(observation)
    for net, sizes in ((actor, (5,)), (values, (6, 7)), (torso, (8,)), (theirs_, (9,))):
        net.create_variables()
        kernels = [v.shape[-1] for v in net.variables if v.shape.rank == 2]
        assert kernels[: len(sizes)] == list(sizes)
    assert values.copy(name="other")._saved_kwargs["fc_layers"] == (6, 7)
    with drivers.GymnasiumEnvironment("CartPole-v1", seed=0) as env:
        assert env.batch_size == 3
        agent = helpers.make_agent(time_step_spec=env.time_step_spec(), action_spec=env.action_spec())
        buffer = drivers.UniformReplayBuffer(agent.collect_data_spec, 3)
        assert buffer.capacity == 33
        rows: list = []
        for cls in (drivers.DynamicStepDriver, dynamic_step_driver.DynamicStepDriver):
            buffer.clear()
            cls(env, agent.collect_policy, [buffer.add_batch]).run()
            assert buffer.gather_all().step_type.shape[1] >= 4
        buffer.clear()
        drivers.DynamicEpisodeDriver(env, agent.collect_policy, [rows.append]).run()
        assert sum(np.sum(each.is_boundary()) for each in rows) >= 4
