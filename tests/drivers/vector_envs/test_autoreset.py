import functools

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from toy_environments import Counter

from ppo_agent.drivers.vector_envs.autoreset import next_step_autoreset


def test_the_adapter_is_a_next_step_environment():
    """Step for step, with the ending of episodes of one step while another environment goes on."""
    makes = [functools.partial(Counter, length=length, terminates=length > 1) for length in (1, 2, 4)]
    same = SyncVectorEnv(makes, autoreset_mode=AutoresetMode.SAME_STEP)
    expected = SyncVectorEnv(makes)
    assert next_step_autoreset(expected) is expected
    adapter = next_step_autoreset(same)
    np.testing.assert_array_equal(adapter.reset(seed=0)[0], expected.reset(seed=0)[0])
    for index in range(30):
        actions = np.array([index % 5, 1, 2])
        found, wanted = adapter.step(actions), expected.step(actions)
        np.testing.assert_array_equal(found[0][:, 0], wanted[0][:, 0])
        for a, b in zip(found[1:4], wanted[1:4], strict=True):
            np.testing.assert_array_equal(a, b)


def test_environments_of_one_class_do_not_mix_up_their_modes():
    same = SyncVectorEnv([Counter], autoreset_mode=AutoresetMode.SAME_STEP)
    later = SyncVectorEnv([Counter])
    assert next_step_autoreset(same) is not same
    assert next_step_autoreset(later) is later


def test_a_reset_forgets_what_ended():
    adapter = next_step_autoreset(SyncVectorEnv([functools.partial(Counter, 1), Counter], autoreset_mode="SameStep"))
    adapter.reset()
    adapter.step(np.array([0, 0]))
    adapter.reset()
    np.testing.assert_array_equal(adapter.step(np.array([0, 0]))[0][:, 0], [1, 1])
