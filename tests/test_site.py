"""The documentation's site: what is made of YAMLs and docstrings, and that it builds strictly and fetches nothing."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from rlgen_cli.cli.listing import GROUPS, keys, place_of
from rlgen_cli.config.compose import composed
from rlgen_cli.config.locate import choices, config_folder

pytest.importorskip("mkdocs", reason="needs rlgen[docs]")
pytest.importorskip("mkdocstrings", reason="needs rlgen[docs]")
ROOT = Path(__file__).parent.parent


HOOKS = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
PAGES: dict[str, str] = HOOKS["pages"]()
CHOICES = [(group, choice) for group in GROUPS.values() for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=[f"{group}={choice}" for group, choice in CHOICES])
def test_every_choice_has_a_page_that_explains_each_of_its_keys(group, choice):
    page = PAGES[HOOKS["place"](group, choice if group in HOOKS["OWN_PAGES"] else None)]
    word = f"{'+' if group == 'reward/term' else ''}{group}={choice}"
    assert re.search(rf"^#+ `{re.escape(word)}`$", page, re.M)
    about = page.split(f" `{word}`\n", 1)[1]
    assert re.match(r"\n\S.*\.\n", about), "it begins with a sentence on what it is"
    for key in keys(group, choice, place_of(group, choice, [config_folder()]), [config_folder()]).values():
        assert re.search(rf"^\| .*`{re.escape(key.name)}`.*\| .*\| \S.* \|$", about, re.M), key


@pytest.mark.slow
def test_the_examples_of_all_pages_compose():
    lines = [line for page in PAGES.values() for line in re.findall(r"```bash\n(rlgen .*)\n```", page)]
    assert len(lines) == len(CHOICES)
    for line in lines:
        _, command, *words = shlex.split(line)
        composed(command, words)


def test_agents_and_environments_say_when_to_use_them_and_what_to_expect():
    for group in ("env", "agent", "generator"):
        for choice in choices(group):
            modules = {name.rpartition(".")[0] for name in HOOKS["classes"](group, choice)}
            text = "".join((ROOT / f"{module.replace('.', '/')}.py").read_text() for module in modules)
            assert "\nWhen to use it: " in text, f"{group}={choice}"


def test_what_is_linked_from_docstrings_exists():
    named = {
        path for file in (ROOT / "rlgen_cli").rglob("*.py") for path in re.findall(r"docs/[\w/]+\.md", file.read_text())
    }
    assert named
    for path in named:
        assert (ROOT / path).is_file(), path


def test_what_a_training_prints_is_shown_as_the_benchmark_recorded_it():
    recorded = (ROOT / "docs" / "results" / "demo.md").read_text()
    (printed,) = re.findall(r"```text\n(.*?)\n```", recorded, re.S)
    for path in (ROOT / "README.md", ROOT / "docs" / "quickstart.md"):
        assert f"```text\n{printed}\n```" in path.read_text(), f"{path.name}: another output than docs/results/demo.md"


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path, monkeypatch):
    """Fifteen seconds. A link that leads nowhere, or a page that the navigation does not have, is an error."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config("mkdocs.yml", strict=True, site_dir=str(tmp_path / "site")))
    pages = list((tmp_path / "site").rglob("*.html"))
    assert {path.name for path in pages} >= {"index.html", "dqn.html", "quickstart.html", "SECURITY.html"}
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<(script|img|iframe)[^>]* src=[\"']?(https?:)?//", text), path
        assert not re.search(r"<link[^>]* rel=[\"']?stylesheet[^>]* href=[\"']?(https?:)?//", text), path
