"""`--preset=FILE`."""

import dataclasses
import json
from pathlib import Path

import pytest

from ppo_agent import train
from ppo_agent.training import choosing, preset_files
from ppo_agent.training.settings import Settings


def test_what_is_written_is_chosen(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    found = {"learning_rate": 2e-3, "collect_steps_per_iteration": 32, "actor_fc_layers": [8, 8], "num_environments": 4}
    preset_files.write(path, found, "a search")
    assert preset_files.read(path).source == "a search"
    settings, source = choosing.choose("CartPole-v1", str(path), {"learning_rate": 1e-3})
    assert source == f"preset {path}"
    assert settings.learning_rate == 1e-3
    assert settings.actor_fc_layers == (8, 8)
    assert (settings.collect_steps_per_iteration, settings.collect_episodes_per_iteration) == (32, None)
    assert settings.num_epochs == Settings().num_epochs


@pytest.mark.parametrize("agent", ["clip", "kl_penalty"])
def test_the_settings_of_a_run_are_one(agent: str, tmp_path: Path) -> None:
    of_run = Settings(agent=agent, recurrent=True, minibatch_size=64, collect_steps_per_iteration=16)
    of_run = dataclasses.replace(of_run, collect_episodes_per_iteration=None)
    document = {"env_name": "Toy-v0", "seed": 3, "settings": dataclasses.asdict(of_run), "specs": {}}
    (tmp_path / "settings.json").write_text(json.dumps(document))
    settings, _ = choosing.choose("CartPole-v1", str(tmp_path / "settings.json"), {})
    assert settings == of_run


WRONG = {
    "absent": (None, "expected a file that can be read: No such file or directory."),
    "no JSON": ("{", "expected JSON"),
    "no object": ("[1]", "expected an object with `settings`, values by name."),
    "no settings": ("{}", "expected an object with `settings`, values by name."),
    "unknown": ('{"settings": {"gamma": 0.9}}', "in which gamma is no setting, expected names of flags."),
    "range": (
        '{"settings": {"learning_rate": -1}}',
        "in which learning_rate is -1, expected a finite number of at least 0.",
    ),
    "kind": ('{"settings": {"num_epochs": "many"}}', "in which num_epochs is 'many', expected an integer"),
    "both": (
        '{"settings": {"collect_steps_per_iteration": 4, "collect_episodes_per_iteration": 4}}',
        "are set, expected one of them.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_before_anything_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = WRONG[name]
    path = tmp_path / "preset.json"
    if text is not None:
        path.write_text(text)
    assert train.main(["ppo-train", f"--preset={path}", f"--root_dir={tmp_path / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ppo-train: preset is '{path}', ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_only_what_can_be_read_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gamma is no setting"):
        preset_files.write(tmp_path / "x.json", {"gamma": 1}, "")
    with pytest.raises(ValueError, match=r"path is .*x\.yml', expected a name that ends with \.json\."):
        preset_files.write(tmp_path / "x.yml", {}, "")
    assert not any(tmp_path.iterdir())
