"""Flags and presets: whatever is typed gives settings that can be trained with, or one sentence and status 2."""

import contextlib
import dataclasses
import io
import re
from unittest import mock

import pytest
from hypothesis import strategies as st
from strategies import holds_for, refusal

from ppo_agent import evaluate, presets, train
from ppo_agent.trainer import Trainer
from ppo_agent.training.settings import COLLECTION, Settings, combine

FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
FLAGS = sorted(train.define_flags().flag_values_dict())
WORDS = st.one_of(
    st.integers(-3, 5000).map(str),
    st.floats().map(str),
    st.sampled_from(["", "0", "1", "true", "no", "64,64", "3,,x", "0x10", "1e3", "-", "CartPole-v1", "auto", "linear"]),
    st.sampled_from(sorted({word for f in FIELDS.values() for word in f.metadata["limits"].get("choices", ())})),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8),
)
ARGUMENTS = st.one_of(
    st.builds("--{}={}".format, st.sampled_from([f for f in FLAGS if f not in ("help", "traceback", "h")]), WORDS),
    st.builds("--{}".format, st.sampled_from(FLAGS).filter(lambda f: f not in ("help", "traceback", "h"))),
    st.builds("--{}".format, st.text("abcdef_", min_size=1, max_size=12).map(lambda t: f"q{t}")),
    WORDS.filter(lambda w: not w.startswith("-")),
)


def bounds_hold(chosen):
    """Whether every value lies within the limits of its field, NaN in none."""
    for name, field in FIELDS.items():
        value, limits = getattr(chosen, name), field.metadata["limits"]
        if value is None:
            assert field.metadata["may_be_none"]
        elif "choices" in limits:
            assert value in limits["choices"]
        elif field.metadata["kind"] is str:
            assert isinstance(value, str)
        else:
            low, high = limits.get("lower_bound", -1e300), limits.get("upper_bound", 1e300)
            assert isinstance(value, tuple) or low <= value <= high, name
    return True


def run(main, *arguments):
    """Exit status and what was written to standard error."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(["program", *arguments])
    return status, errors.getvalue()


def named(text):
    """The flags that a sentence names."""
    return set(re.findall(r"\w+", text))


@holds_for(
    *({"arguments": [f"--{name}={value}"]} for name in ("learning_rate", "lambda_value") for value in ("nan", "inf")),
    arguments=st.lists(ARGUMENTS, max_size=4),
)
def test_any_command_line_of_ppo_train(arguments, tmp_path_factory):
    requests = []

    def remember(values, given, *_):
        requests.append((given, combine({}, given)))
        return mock.MagicMock(spec=Trainer)

    root = str(tmp_path_factory.getbasetemp() / "nothing")
    quiet = mock.patch.multiple(
        train,
        _begin=lambda values, _, given: remember(values, given),
        _resume=lambda _, *rest: remember(*rest),
        _train=lambda *_: 0,
        _from_gin=lambda _: {},
    )
    with quiet:
        status, error = run(train.main, *arguments, f"--root_dir={root}")
    if status == 0:
        ((given, chosen),) = requests
        assert error == ""
        assert bounds_hold(chosen)
        for name, value in given.items():
            assert name == "nminibatches" or getattr(chosen, name) == value
        return
    assert status == 2
    assert error.startswith("ppo-train: ")
    assert len(error.splitlines()) == 1
    assert "Traceback" not in error
    given = {re.sub(r"^-+(no)?", "", a.partition("=")[0]) for a in arguments} | set(arguments)
    assert named(error) & {word for g in given for word in named(g)} or any(repr(g) in error for g in given)


@holds_for(
    arguments=st.lists(
        st.builds(
            "--{}={}".format, st.sampled_from(["policy_dir", "env_name", "num_episodes", "seed", "video_dir"]), WORDS
        ),
        max_size=3,
    )
)
def test_any_command_line_of_ppo_eval(arguments):
    status, error = run(evaluate.main, *arguments)
    assert status == 2
    assert re.fullmatch(r"ppo-eval: .+\n", error)
    assert "policy_dir" in error or named(error) & {a.partition("=")[0][2:] for a in arguments}


def values_of(name):
    field = FIELDS[name]
    limits = field.metadata["limits"]
    if "choices" in limits:
        return st.sampled_from(limits["choices"])
    if field.metadata["kind"] is bool:
        return st.booleans()
    if isinstance(field.default, tuple):
        return st.lists(st.integers(1, 64), max_size=2).map(tuple)
    if isinstance(field.default, float):
        return st.floats(limits.get("lower_bound", -5), limits.get("upper_bound", 5), width=32)
    return st.integers(1, 10_000)


def given_values():
    """Any values that flags can give, by the names of the settings."""
    some = st.lists(st.sampled_from(sorted(FIELDS)), unique=True, max_size=6)
    return some.flatmap(lambda names: st.fixed_dictionaries({name: values_of(name) for name in names}))


PRESETS = st.sampled_from([{}, *(preset.settings for preset in presets.PRESETS.values())])


@holds_for(preset=PRESETS, given=given_values())
def test_presets_and_flags_combine_to_settings_that_fit_one_another(preset, given):
    sentence = refusal(combine, preset, given)
    if sentence is not None:
        assert ", expected " in sentence
        assert named(sentence) & set(given)
        return
    chosen = combine(preset, given)
    assert bounds_hold(chosen)
    assert sum(getattr(chosen, name) is not None for name in COLLECTION) == 1
    for name, value in given.items():
        assert getattr(chosen, name) == value
    for name, value in preset.items():
        replaced = name in given or name == "minibatch_size" or (name in COLLECTION and set(COLLECTION) & set(given))
        assert replaced or getattr(chosen, name) == value
    steps = min(chosen.steps_per_iteration or chosen.total_environment_steps, chosen.total_environment_steps)
    assert chosen.minibatch_size <= steps
    assert combine(dataclasses.asdict(chosen), {}) == chosen  # As when a run is resumed.


@holds_for(name=st.sampled_from(sorted(presets.PRESETS)), version=st.integers(0, 99), space=st.text("ab", max_size=3))
def test_presets_are_found_whatever_the_version_and_namespace(name, version, space):
    assert presets.find(f"{space}/{name}-v{version}") is presets.PRESETS[name]
    assert presets.find(f"{space}:{name}-v{version}") is presets.PRESETS[name]
    presets.check_name(f"{name}-v{version}")


@holds_for(name=st.text(max_size=12))
def test_unknown_presets_are_refused_in_one_line(name):
    if name in (presets.AUTO, presets.NONE) or presets.find(name):
        return
    with pytest.raises(ValueError, match=r"preset is .*, expected auto, none or one of"):
        presets.check_name(name)
