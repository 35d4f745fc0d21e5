"""A trained agent is freed when nobody holds it any more."""

import gc
import weakref

import helpers
import pytest


@pytest.mark.parametrize("keywords", [{}, {"minibatch_size": 8, "jit_compile": True}, {"debug_summaries": True}])
def test_a_trained_agent_is_freed(rng, keywords):
    agent = helpers.make_agent(eager=False, num_epochs=1, **keywords)
    agent.train(helpers.make_experience(agent, rng))
    parts = [weakref.ref(part) for part in (agent, agent._update, agent.actor_net, agent.collect_policy)]
    del agent
    gc.collect()
    assert [part() for part in parts] == [None] * len(parts)
