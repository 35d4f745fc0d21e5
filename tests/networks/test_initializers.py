"""Initial weights: orthogonal, scaled, reproducible, different in every layer."""

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent.networks import initializers


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (4, 32), (32, 4)])
def test_dense_kernel_is_orthogonal_with_gain(rows: int, columns: int) -> None:
    layer = initializers.dense(columns, gain=3.0, seed=1)
    layer.build((None, rows))
    kernel = layer.kernel.numpy()
    gram = kernel @ kernel.T if rows <= columns else kernel.T @ kernel
    np.testing.assert_allclose(gram, 9.0 * np.eye(len(gram)), atol=1e-4)
    np.testing.assert_array_equal(layer.bias.numpy(), 0.0)


def test_seed_source_repeats_and_never_gives_a_seed_twice() -> None:
    first, second = initializers.SeedSource(7, "actor"), initializers.SeedSource(7, "actor")
    seeds = [first() for _ in range(100)]
    assert seeds == [second() for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**31 - 1 for seed in seeds)


def test_seed_source_depends_on_seed_and_salt() -> None:
    assert initializers.SeedSource(7, "actor")() != initializers.SeedSource(8, "actor")()
    assert initializers.SeedSource(7, "actor")() != initializers.SeedSource(7, "value")()


def test_seed_source_without_a_seed_follows_tensorflow() -> None:
    tf.random.set_seed(5)
    first, other = initializers.SeedSource(None, "actor")(), initializers.SeedSource(None, "actor")()
    tf.random.set_seed(5)
    assert initializers.SeedSource(None, "actor")() == first
    assert first != other


def test_seed_source_without_a_seed_works_inside_a_function() -> None:
    @tf.function
    def trace() -> tf.Tensor:
        return tf.constant(initializers.SeedSource(None, "actor")())

    assert trace().numpy() >= 0
