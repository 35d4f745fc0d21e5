"""Reads the imports of all sources: the direction of the folders is enforced here, see docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "ppo_agent": ROOT / "ppo_agent",
    "ppo_agent.networks": ROOT / "networks",
    "ppo_agent.drivers": ROOT / "drivers",
}

SHARED = {"ppo_agent.maths", "ppo_agent.common"}
# The binaries, and what only they, notebooks and examples use.
TOP = {
    "ppo_agent.train", "ppo_agent.evaluate", "ppo_agent.training", "ppo_agent.trainer", "ppo_agent.callbacks",
    "ppo_agent.pretraining", "ppo_agent.export_command", "ppo_agent.deployment", "ppo_agent.plot_command",
    "ppo_agent.sweep_command",
}  # fmt: skip
ENVIRONMENTS = {"gym", "gymnasium", "tf_agents.environments", "tf_agents.drivers", "ppo_agent.drivers"}
COMMAND_LINE = {"absl.app", "absl.flags", "argparse", "tqdm", "matplotlib"}


def sources() -> Iterator[tuple[str, Path]]:
    """Yields (module name, file) of everything that is installed."""
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def imports(module: str, source: str, is_package: bool = False) -> set[str]:
    """Returns the dotted names that a module imports, `from a import b` as a.b, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            parents = parents[: len(parents) - node.level + is_package] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def is_inside(name: str, packages: set[str]) -> bool:
    """Says whether a dotted name is one of the packages or lies in one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def own_imports(module: str) -> set[str]:
    """Returns the parts of ppo_agent that a module may import."""
    if is_inside(module, SHARED):  # maths/ and common/ know tensors and nests only.
        return SHARED
    for folder in ("ppo_agent.networks", "ppo_agent.drivers"):  # These know TF-Agents' interfaces, and not the agent.
        if is_inside(module, {folder}):
            return SHARED | {folder}
    return {"ppo_agent"}


def forbidden_imports(module: str) -> set[str]:
    """Returns what a module must not import."""
    if is_inside(module, TOP):  # These know everything, and nothing imports them.
        return set()
    if module == "ppo_agent":  # Names everything that is public, and imports it on first use.
        return COMMAND_LINE
    if is_inside(module, {"ppo_agent.drivers"}):
        return COMMAND_LINE | TOP
    return COMMAND_LINE | TOP | ENVIRONMENTS  # The agent and its learner know no environment.


def wrong_imports(module: str, source: str, is_package: bool = False) -> set[str]:
    """Returns the imports of a module that go against the direction."""
    found = imports(module, source, is_package)
    foreign = {name for name in found if is_inside(name, {"ppo_agent"})}
    foreign -= {name for name in foreign if is_inside(name, own_imports(module))}
    return foreign | {name for name in found if is_inside(name, forbidden_imports(module))}


@pytest.mark.parametrize(("module", "path"), list(sources()), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_one_way(module: str, path: Path) -> None:
    assert not wrong_imports(module, path.read_text(encoding="utf-8"), is_package=path.name == "__init__.py")


@pytest.mark.parametrize("path", sorted((ROOT / "ppo_agent" / "maths").glob("*.py")), ids=lambda path: path.stem)
def test_formulas_write_no_summaries_and_print_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not {"summary", "print"} & (attributes | names)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ppo_agent.maths.returns", "from ppo_agent.agent import PPOAgent"),
        ("ppo_agent.maths.losses", "from ppo_agent import summaries"),
        ("ppo_agent.maths.masking", "from .. import policy"),
        ("ppo_agent.common.nest_checks", "from ppo_agent.networks import ActorNetwork"),
        ("ppo_agent.agent", "def f():\n    import gymnasium.spaces"),
        ("ppo_agent.agent", "from tf_agents.environments import suite_gym"),
        ("ppo_agent.agent", "from ppo_agent.drivers import UniformReplayBuffer"),
        ("ppo_agent.learner.batches", "from ppo_agent.drivers import UniformReplayBuffer"),
        ("ppo_agent.policy", "from ppo_agent.train import cli"),
        ("ppo_agent.agent", "from ppo_agent.training import console"),
        ("ppo_agent.config", "from absl import flags"),
        ("ppo_agent.networks.heads", "from ppo_agent import PPOAgent"),
        ("ppo_agent.networks.heads", "from ..policy import PPOPolicy"),
        ("ppo_agent.networks.heads", "import ppo_agent.drivers.environments.spaces"),
        ("ppo_agent.drivers.environments.spaces", "import ppo_agent.agent"),
        ("ppo_agent.drivers.environments.spaces", "from ppo_agent.networks import ActorNetwork"),
        ("ppo_agent.drivers.rollouts.columns", "from ...summaries import write_histograms"),
    ],
)
def test_the_check_sees_wrong_imports(module: str, source: str) -> None:
    assert len(wrong_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ppo_agent.maths.returns", "import tensorflow as tf\nfrom ppo_agent.maths import masking"),
        ("ppo_agent.agent", "from ppo_agent.maths import losses\nfrom tf_agents.agents import tf_agent"),
        ("ppo_agent.agent", "from ppo_agent.networks import MaskedNetwork"),
        ("ppo_agent.networks.heads", "from .encoders import Encoder\nfrom ppo_agent.maths import distributions"),
        ("ppo_agent.drivers.environments.spaces", "import gymnasium\nfrom ..faults import faults"),
        ("ppo_agent.train", "from absl import flags\nfrom ppo_agent import presets, drivers, PPOClipAgent"),
        ("ppo_agent.training.console", "import tqdm\nfrom ppo_agent.drivers import GymnasiumEnvironment"),
    ],
)
def test_the_check_lets_right_imports_pass(module: str, source: str) -> None:
    assert not wrong_imports(module, source)
