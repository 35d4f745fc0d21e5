"""`ppo_agent.PPOLearner` beside TF-Agents' learner, with its triggers and files."""

import dataclasses

import helpers
import numpy as np
import pytest
import tensorflow as tf
from test_summaries import written
from tf_agents.train import ppo_learner, triggers
from tf_agents.utils import common

import ppo_agent
from ppo_agent import update_methods
from ppo_agent.learner import minibatches

BATCH, STEPS = 4, 9
KEYWORDS = {
    "num_epochs": 1,
    "use_gae": True,
    "compute_value_and_advantage_in_train": False,
    "update_normalizers_in_train": False,
    "importance_ratio_clipping": 0.2,
}


class OneStepAgent(ppo_agent.PPOAgent):
    """Overrides `_train`, so that every minibatch has to go through it."""

    calls = 0

    def _train(self, experience, weights):
        type(self).calls += 1
        return super()._train(experience, weights)


def make_agent(cls=None, **keywords):
    return helpers.make_agent("sequential", cls=cls, eager=False, **{**KEYWORDS, **keywords})


def make_learner(cls, agent, experiences, root_dir, **keywords):
    """A learner whose datasets repeat the experiences."""

    def dataset():
        # As in TF-Agents' examples, values and advantages are computed in the pipeline.
        datasets = [tf.data.Dataset.from_tensors(agent.preprocess_sequence(e)) for e in experiences]
        joined = datasets[0]
        for more in datasets[1:]:
            joined = joined.concatenate(more)
        return joined.map(lambda trajectory: (trajectory, ())).repeat()

    keywords = {"num_samples": len(experiences), "shuffle_buffer_size": 1, **keywords}
    return cls(str(root_dir), agent.train_step_counter, agent, dataset, dataset, **keywords)


def make_experience(agent, rng, batch=BATCH, steps=STEPS):
    return helpers.make_experience(agent, rng, batch, steps)


def both(rng, tmp_path, num_samples=1, agent_keywords=(), **keywords):
    """Agents trained by TF-Agents' and by our learner for two iterations, and the losses that they returned."""
    agents = [make_agent(**dict(agent_keywords)) for _ in range(2)]
    helpers.copy_weights(*agents)
    experiences = [make_experience(agents[0], rng) for _ in range(num_samples)]
    results = []
    for agent, cls in zip(agents, (ppo_learner.PPOLearner, ppo_agent.PPOLearner), strict=True):
        learner = make_learner(cls, agent, experiences, tmp_path / cls.__module__, **keywords)
        results.append([learner.run() for _ in range(2)])
    return agents, results


def assert_equal(agents, results):
    for reference, ours in zip(tf.nest.flatten(results[0]), tf.nest.flatten(results[1]), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=2e-4, atol=1e-5)
    for reference, ours in zip(*(agent.variables for agent in agents), strict=True):
        if "report" not in reference.name:
            np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5, err_msg=reference.name)


@pytest.mark.parametrize(
    ("kind", "num_epochs"),
    [(None, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((None, 1), (ppo_agent.PPOClipAgent, 3)))],
)
def test_a_minibatch_of_everything_gives_the_numbers_of_tf_agents_learner(rng, tmp_path, kind, num_epochs):
    keywords = {"minibatch_size": BATCH * STEPS, "num_epochs": num_epochs}
    agents, results = both(rng, tmp_path, agent_keywords={"cls": kind}, **keywords)
    assert_equal(agents, results)
    assert [int(agent.train_step_counter) for agent in agents] == [2 * num_epochs] * 2


@pytest.mark.slow
def test_whole_sequences_give_the_numbers_of_tf_agents_learner(rng, tmp_path):
    assert_equal(*both(rng, tmp_path, num_epochs=2))


@pytest.mark.slow
def test_several_samples_are_one_iteration(rng, tmp_path):
    agents, results = both(rng, tmp_path, num_samples=2, minibatch_size=2 * BATCH * STEPS)
    assert_equal(agents, results)
    assert int(agents[1].train_step_counter) == 2


@pytest.mark.slow
def test_minibatches_make_as_many_steps_as_tf_agents_learner(rng, tmp_path):
    agents, _ = both(rng, tmp_path, minibatch_size=7, num_epochs=2)
    assert [int(agent.train_step_counter) for agent in agents] == [2 * 2 * (BATCH * STEPS // 7)] * 2


def test_every_epoch_has_each_valid_row_once(rng):
    agent = make_agent()
    update = update_methods.make_update(
        agent,
        dataclasses.replace(agent._config, num_epochs=2, minibatch_size=6),
        tf.Variable(3, dtype=tf.int64),
        is_series=True,
    ).update
    experience = make_experience(agent, rng)
    rows, plan = update.deal_out(update.make_batch(agent.preprocess_sequence(experience), None))
    picked = [minibatches.select_minibatch(rows, plan, tf.constant(i)) for i in range(2 * (BATCH * STEPS // 6))]
    for epoch in (picked[: len(picked) // 2], picked[len(picked) // 2 :]):
        returns = np.concatenate([minibatch.returns.numpy()[minibatch.mask.numpy()] for minibatch in epoch])
        np.testing.assert_array_equal(np.sort(returns), np.sort(rows.returns.numpy()[rows.mask.numpy()]))


def test_a_remainder_is_dropped_as_by_tf_agents_learner():
    plan = minibatches.make_minibatches(tf.ones([11], tf.bool), 4, 1, tf.constant([1, 2]), tf.constant(2))
    assert (int(plan.count), int(plan.num_rows), plan.size) == (2, 8, 4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Encoding a StructuredValue")
def test_triggers_checkpoints_and_summaries(rng, tmp_path):
    agent = make_agent(debug_summaries=True)
    seen = []
    learner = make_learner(
        ppo_agent.PPOLearner,
        agent,
        [make_experience(agent, rng)],
        tmp_path,
        minibatch_size=12,
        num_epochs=2,
        checkpoint_interval=6,
        summary_interval=4,
        triggers=[
            triggers.PolicySavedModelTrigger(str(tmp_path / "policies"), agent, agent.train_step_counter, interval=1),
            triggers.StepPerSecondLogTrigger(agent.train_step_counter, interval=1),
            seen.append,
        ],
    )
    for _ in range(3):
        learner.run()
    learner._generic_learner.train_summary_writer.flush()
    assert [int(step) for step in seen] == [6, 12, 18]
    tags = written(tmp_path / "train")
    # Of each iteration once if one of its steps is a multiple of 4; details of the gradient step itself.
    assert [step for step, _ in tags["Losses/policy_gradient_loss"]] == [6, 12, 18]
    assert [step for step, _ in tags["importance_ratio_mean"]] == [0, 4, 8, 12, 16]
    other = make_agent()
    checkpointer = common.Checkpointer(
        str(tmp_path / "train" / "checkpoints"), agent=other, train_step=other.train_step_counter
    )
    checkpointer.initialize_or_restore()
    for ours, restored in zip(agent._trained_variables(), other._trained_variables(), strict=True):
        np.testing.assert_array_equal(ours, restored)
    assert (tmp_path / "policies" / "policy").exists()


@pytest.mark.slow
def test_an_overridden_train_gets_every_minibatch(rng, tmp_path):
    agent = make_agent(cls=OneStepAgent)
    learner = make_learner(ppo_agent.PPOLearner, agent, [make_experience(agent, rng)], tmp_path, minibatch_size=12)
    assert learner._run_update is None
    learner.run()
    assert OneStepAgent.calls
    assert int(agent.train_step_counter) == 3


def test_too_few_frames_are_refused(rng, tmp_path):
    agent = make_agent()
    learner = make_learner(ppo_agent.PPOLearner, agent, [make_experience(agent, rng)], tmp_path, minibatch_size=37)
    with pytest.raises(ValueError, match="minibatch_size is 37, expected at most the 36 frames of an iteration"):
        learner.run()
