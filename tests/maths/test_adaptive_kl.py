"""The adaptive coefficient of the KL penalty."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from ppo_agent.maths import adaptive_kl


@pytest.mark.parametrize("mean_kl", [0.0, 0.0069, 0.0071, 0.01, 0.0129, 0.0131, 5.0])
@pytest.mark.parametrize("beta", [1.0, 1e-15, 1.2e-15, 1e17, 0.9e17])
def test_beta_follows_the_oracle(mean_kl, beta):
    factor = adaptive_kl.update_factor(tf.constant(mean_kl), 0.01, 0.3)
    actual = adaptive_kl.updated_beta(tf.constant(beta, tf.float32), factor)
    np.testing.assert_allclose(actual, oracles.updated_beta(beta, mean_kl, 0.01, 0.3), rtol=1e-6)


def test_factor_is_one_within_the_band_and_at_its_edges():
    for mean_kl in (0.75, 1.0, 1.25):
        assert adaptive_kl.update_factor(tf.constant(mean_kl), 1.0, 0.25) == 1.0
