"""Parameters from odd mappings: all that is asked for, or nothing."""

import re

import numpy as np
import pytest
import tensorflow as tf

from ppo_agent import Trainer, train


@pytest.fixture(scope="module")
def trainer():
    with Trainer("CartPole-v1", preset="none", num_environments=2, actor_fc_layers=(4,), value_fc_layers=()) as made:
        yield made


def list_of(array):
    return array.tolist()


def unchanged(trainer, before):
    for name, array in trainer.get_parameters().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


KERNEL = "_value_net/value_layer/kernel"
COUNT, SQUARES = "_observation_normalizer/_count/0", "_reward_normalizer/_m2/0"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (KERNEL, lambda x: np.full(x.shape, 1e39), f"{KERNEL} holds NaN or infinity, expected finite numbers"),
        (KERNEL, lambda x: x.astype(object), f"{KERNEL} has dtype object, expected numbers"),
        (KERNEL, lambda x: "x", f"{KERNEL} has dtype <U1, expected numbers"),
        (KERNEL, lambda x: [[1, 2], [3]], f"{KERNEL} is a list that makes no array"),
        (KERNEL, lambda x: None, f"{KERNEL} is not in what is loaded"),
        (KERNEL, lambda x: x * 1j, f"{KERNEL} has dtype complex64, expected numbers"),
        (COUNT, np.zeros_like, f"{COUNT} holds 0.0, expected positive numbers"),
        (COUNT, lambda x: -x, f"{COUNT} holds -.*, expected positive numbers"),
        (SQUARES, lambda x: x - 3, f"{SQUARES} holds -3.0, expected numbers of at least 0"),
        (3, lambda x: 1, "3 is not in this agent"),
        (b"a", lambda x: 1, "b'a' is not in this agent"),
    ],
)
def test_a_value_that_does_not_fit_is_skipped_or_told(trainer, name, value, message):
    before = trainer.get_parameters()
    odd = {**before, name: value(before.get(name, np.zeros(1)))}
    with pytest.raises(ValueError, match=f"^parameters do not fit: {message} \\(exact_match=False takes what fits"):
        trainer.load_parameters(odd)
    unchanged(trainer, before)
    loaded, skipped = trainer.load_parameters(odd, exact_match=False)
    assert list(skipped) == [str(name)]
    assert re.match(message.partition(" ")[2], skipped[str(name)])
    assert len(loaded) == len(before) - (name in before)
    unchanged(trainer, before)


@pytest.mark.parametrize("convert", [np.asarray, tf.constant, tf.Variable, list_of, np.float64])
def test_values_of_every_kind_of_array(trainer, convert):
    before = trainer.get_parameters()
    changed = {name: array + 0.5 for name, array in before.items()}
    trainer.load_parameters({name: convert(array) for name, array in changed.items()})
    for name, array in trainer.get_parameters().items():
        np.testing.assert_allclose(array, changed[name], rtol=1e-6)
    trainer.load_parameters(before)


@pytest.mark.parametrize("source", [None, 3, [1], b"folder"])
def test_another_source(trainer, source):
    with pytest.raises(TypeError, match=r"source is .*, expected arrays by name, or the folder of a run"):
        trainer.load_parameters(source)


FLAGS = (
    "--preset=none", "--num_environments=2", "--collect_steps_per_iteration=8", "--minibatch_size=8", "--num_epochs=1",
    "--total_environment_steps=16", "--actor_fc_layers=4", "--value_fc_layers=", "--num_eval_episodes=1",
    "--learning_rate=0", "--nojit_compile", "--noprogress",
)  # fmt: skip


def test_a_run_starts_with_the_networks_and_normalisers_of_another(trainer, tmp_path, capsys):
    before = trainer.get_parameters()
    trainer.load_parameters({name: array + 0.25 for name, array in before.items()})
    trainer.save(tmp_path / "other")
    start = trainer.get_parameters()
    trainer.load_parameters(before)
    run = tmp_path / "run"
    assert train.main(["ppo-train", f"--root_dir={run}", f"--warm_start={tmp_path / 'other'}", *FLAGS]) == 0
    assert f"Starting with {len(start)} variables of {tmp_path / 'other'}" in capsys.readouterr().out
    with Trainer.load(run) as found:
        assert 8 <= found.environment_steps <= 16
        parameters = found.get_parameters()
    networks = [name for name in start if "_net/" in name]
    assert networks
    for name in networks:
        np.testing.assert_array_equal(parameters[name], start[name], err_msg=name)
    assert (parameters[COUNT] > start[COUNT]).all()  # It goes on counting from there.


def test_nothing_to_start_with_is_a_wrong_flag(tmp_path, capsys):
    for path in ("nowhere", "file"):
        (tmp_path / "file").write_text("x")
        arguments = [f"--root_dir={tmp_path / 'run'}", f"--warm_start={tmp_path / path}", *FLAGS]
        assert train.main(["ppo-train", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"warm_start is '{tmp_path / path}', expected a run with an agent like this one: " in line
        assert not (tmp_path / "run").exists()
