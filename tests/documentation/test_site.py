"""The site: every public name has its place, tables say what the package says, pages are found."""

import csv
import dataclasses
import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import ppo_agent
from ppo_agent.config import OTHER_KEYWORDS, PPOConfig
from ppo_agent.training import metrics_table, preset_files
from ppo_agent.training.settings import Settings

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGES = ("ppo_agent", "ppo_agent.networks", "ppo_agent.drivers", "ppo_agent.callbacks", "ppo_agent.export")


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, which names Python objects too."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)


@pytest.fixture(scope="module")
def settings_table() -> Any:
    path = DOCS / "_hooks" / "settings_table.py"
    spec = importlib.util.spec_from_file_location("settings_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def site_settings() -> dict[str, Any]:
    return yaml.load((ROOT / "mkdocs.yml").read_text(), Loader=_Loader)


def names_in(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav if isinstance(nav, list) else list(nav.values())
    return [name for entry in entries for name in names_in(entry)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    text = "".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    documented = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    names = [name for name in importlib.import_module(package).__all__ if not name.startswith("__")]
    assert names
    assert {f"{package}.{name}" for name in names} <= documented


def test_the_reference_names_what_is_there() -> None:
    text = "".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        module, _, attribute = name.rpartition(".")
        if name.startswith("ppo_agent.maths."):
            assert importlib.import_module(name).__doc__
        else:
            assert getattr(importlib.import_module(module), attribute).__doc__


def test_every_page_is_in_the_navigation() -> None:
    listed = set(names_in(site_settings()["nav"]))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    elsewhere = {"index.md", "benchmarks.md", "changelog.md", "contributing.md", "security.md"}
    assert listed == pages | elsewhere


def test_the_table_of_settings_is_that_of_the_package(settings_table: Any) -> None:
    found = settings_table.settings()
    fields = dataclasses.fields(Settings)
    assert list(found) == [field.name for field in fields]
    for field in fields:
        default, text = found[field.name]
        assert default == field.default
        assert text.startswith(field.metadata["help"])
        for choice in field.metadata["limits"].get("choices", ()):
            assert choice in text


def test_keywords_are_those_of_the_package(settings_table: Any) -> None:
    expected = {field.name: (field.default, field.metadata["help"]) for field in dataclasses.fields(PPOConfig)}
    assert settings_table.hyper_parameters() == expected
    assert settings_table.other_keywords() == OTHER_KEYWORDS
    assert settings_table.of_columns() == ", ".join(f"`{name}`" for name in metrics_table.COLUMNS)


def test_versions_agree() -> None:
    version = ppo_agent.__version__
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / ".github").rglob("*.yml")), ROOT / ".pre-commit-config.yaml"], ids=str
)
def test_files_of_the_repository_are_sound(path: Path) -> None:
    assert yaml.safe_load(path.read_text())


def test_workflow_has_every_stack_and_python() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    found = {(entry["python"], entry["stack"]) for entry in matrix["include"]}
    assert found == {("3.11", "tf221"), ("3.12", "tf221"), ("3.13", "tf221"), ("3.11", "tf215")}


def test_the_preset_that_a_search_found_is_one() -> None:
    preset = preset_files.read(DOCS / "search_lunar_lander.json")
    assert "LunarLander-v3" in preset.source
    rows = list(csv.DictReader((DOCS / "search_lunar_lander.csv").read_text().splitlines()))
    best = max((row for row in rows if row["state"] == "complete"), key=lambda row: float(row["return"]))
    assert f"trial {best['trial']} of {len(rows)}, return {best['return']}" in preset.source
    assert float(best["learning_rate"]) == pytest.approx(preset.settings["learning_rate"], rel=1e-3)


def test_thirty_questions_are_answered_with_links_both_ways() -> None:
    answers = (DOCS / "faq.md").read_text().split("\n### ")[1:]
    assert len(answers) == 30
    others = "".join(path.read_text() for path in DOCS.rglob("*.md") if path.name != "faq.md")
    for answer in answers:
        title = answer.partition("\n")[0]
        anchor = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())
        assert f"(faq.md#{anchor})" in others, title
        assert "*Asked in " in answer, title
    assert sum("](" in answer for answer in answers) >= 25
