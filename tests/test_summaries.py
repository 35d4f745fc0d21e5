"""What `train` writes for TensorBoard, read back from the event files."""

import helpers
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.plugins.scalar import summary_v2

from ppo_agent.common import scalar_summaries

KEYWORDS = {"importance_ratio_clipping": 0.2, "use_gae": True, "num_epochs": 3, "entropy_regularization": 0.01}

ALWAYS = {
    "Losses/policy_gradient_loss",
    "Losses/value_estimation_loss",
    "Losses/l2_regularization_loss",
    "Losses/entropy_regularization_loss",
    "Losses/kl_penalty_loss",
    "Losses/total_abs_loss",
    "Losses/entropy",
    "LearningRate/learning_rate",
}
DEBUG = {
    "actions",
    "actions_distribution_mean",
    "actions_distribution_stddev",
    "action_log_prob",
    "action_log_prob_sample",
    "adaptive_kl_beta",
    "adaptive_kl_loss",
    "adaptive_kl_update_factor",
    "advantages",
    "advantages_normalized",
    "clip_fraction",
    "entropy_reg_loss",
    "importance_ratio",
    "importance_ratio_clipped",
    "importance_ratio_mean",
    "kl_cutoff_count",
    "kl_cutoff_loss",
    "kl_divergence",
    "l2_loss",
    "mean_kl_divergence",
    "observations",
    "per_timestep_objective",
    "per_timestep_objective_clipped",
    "per_timestep_objective_min",
    "policy_entropy",
    "policy_entropy_mean",
    "policy_gradient_loss",
    "returns",
    "rewards",
    "rewards_mean",
    "rewards_normalized",
    "rewards_normalized_mean",
    "value_actual_avg",
    "value_estimation_error",
    "value_estimation_loss",
    "value_pred_avg",
    "value_preds",
}


def written(folder):
    """Scalars and histograms by tag: (step, value) each; the value of a histogram is its shape."""
    tags = {}
    for path in sorted(folder.glob("events.*")):
        for event in event_file_loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                array = tf.make_ndarray(value.tensor)
                tags.setdefault(value.tag, []).append((event.step, array if array.ndim else float(array)))
    return tags


def train(agent, experience, folder, calls=1):
    writer = tf.summary.create_file_writer(str(folder))
    with writer.as_default():
        for _ in range(calls):
            agent.train(experience)
    writer.close()
    return written(folder)


@pytest.mark.parametrize("minibatch_size", [None, 8])
def test_losses_and_diagnostics_of_every_call(rng, tmp_path, minibatch_size):
    agent = helpers.make_agent(**KEYWORDS, minibatch_size=minibatch_size)
    tags = train(agent, helpers.make_experience(agent, rng), tmp_path, calls=2)
    assert tags.keys() >= ALWAYS
    metrics = agent.train_metrics()
    for tag in ALWAYS - {"Losses/total_abs_loss"}:
        steps = [step for step, _ in tags[tag]]
        assert steps == [int(agent.train_step_counter) // 2, int(agent.train_step_counter)]
        np.testing.assert_allclose(tags[tag][-1][1], metrics[tag.split("/")[1]], rtol=1e-5)
    total = sum(abs(metrics[tag.split("/")[1]]) for tag in ALWAYS if tag.endswith("_loss") and "total" not in tag)
    np.testing.assert_allclose(tags["Losses/total_abs_loss"][-1][1], total, rtol=1e-5)
    for name in ("approx_kl", "explained_variance", "gradient_norm", "clip_fraction"):
        np.testing.assert_allclose(tags[f"Diagnostics/{name}"][-1][1], metrics[name], rtol=1e-5)


def test_debug_summaries_have_the_references_names(rng, tmp_path):
    keywords = {**KEYWORDS, "policy_l2_reg": 0.01, "debug_summaries": True, "summarize_grads_and_vars": True}
    agent = helpers.make_agent(**keywords, eager=False)
    tags = train(agent, helpers.make_experience(agent, rng), tmp_path)
    assert tags.keys() >= ALWAYS | DEBUG
    # What concerns single gradient steps is written in the first and the last epoch.
    assert [step for step, _ in tags["importance_ratio_mean"]] == [0, 2]
    assert [step for step, _ in tags["rewards_mean"]] == [0]
    assert tags["adaptive_kl_beta"][0][0] == 3
    variables = {v.name.replace(":", "_") for v in agent._trained_variables()}
    assert {tag for tag in tags if tag.startswith("Variables/")} == {f"Variables/{name}" for name in variables}
    assert any("gradient" in tag for tag in tags)
    np.testing.assert_allclose(tags["adaptive_kl_beta"][0][1], agent.train_metrics()["adaptive_kl_beta"], rtol=1e-6)


def test_several_observations_and_actions_are_numbered(rng, tmp_path):
    agent = helpers.make_agent(action_spec=helpers.NESTED, **KEYWORDS, debug_summaries=True)
    tags = train(agent, helpers.make_experience(agent, rng), tmp_path)
    assert {"actions_0", "actions_1", "observations"} <= tags.keys()


def test_nothing_without_a_writer_and_nothing_while_recording_is_off(rng, tmp_path):
    agent = helpers.make_agent(**KEYWORDS)
    experience = helpers.make_experience(agent, rng)
    agent.train(experience)
    with tf.summary.record_if(False):
        assert not train(agent, experience, tmp_path)


def test_summaries_of_the_callers_function(rng, tmp_path):
    agent = helpers.make_agent(**KEYWORDS, eager=False)
    agent.train = tf.function(agent.train, autograph=False)
    tags = train(agent, helpers.make_experience(agent, rng), tmp_path, calls=2)
    assert tags.keys() >= ALWAYS
    assert [step for step, _ in tags["Losses/entropy"]] == [3, 6]


def test_debug_summaries_change_no_number(rng):
    agents = [helpers.make_agent(**KEYWORDS, debug_summaries=debug) for debug in (False, True)]
    helpers.copy_weights(*agents)
    experience = helpers.make_experience(agents[0], rng)
    losses = [tf.nest.flatten(agent.train(experience)) for agent in agents]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)


def test_scalars_are_written_as_tensorboard_writes_them() -> None:
    scalars = {"a/b": 1.5, "c": np.float32(-2e-7), "d": float("nan")}
    entries = scalar_summaries.scalars_pb(scalars).value
    assert len(entries) == 3
    for entry, (name, value) in zip(entries, scalars.items(), strict=True):
        (expected,) = summary_v2.scalar_pb(name, np.float32(value)).value
        assert (entry.tag, entry.metadata) == (expected.tag, expected.metadata)
        np.testing.assert_array_equal(tf.make_ndarray(entry.tensor), tf.make_ndarray(expected.tensor))
        assert tf.make_ndarray(entry.tensor).dtype == np.float32
