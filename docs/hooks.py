"""What mkdocs adds to the pages of this folder: the front matter of the repository, and a page for each choice of the
command line, from the YAMLs and docstrings that `rlgen list` and the Python API read. None of it is committed.
"""

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from rlgen_cli.cli.listing import GROUPS, Key, description, keys, place_of
from rlgen_cli.config.goes_with import said
from rlgen_cli.config.locate import choices, config_folder, parsed, target_of, text_of

ROOT = Path(__file__).parent.parent
FOLDERS = [config_folder()]
# Files of the repository that are pages of the site, and their names there.
FRONT_MATTER = {
    "README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
}  # fmt: skip
# Groups whose every choice has a page of its own; the choices of another share one.
OWN_PAGES = {
    "env": "Environments", "agent": "Agents", "reward": "Rewards", "reward/term": "Reward terms",
    "generator": "Generators",
}  # fmt: skip
PRETRAINED = ("agent=maximum_likelihood", "experiment=seqgan_mle")  # what rlgen pretrain trains
MISSING = "???"  # how a YAML says that the user has to give a value
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """What of the navigation follows from what there is: results, and the reference of choices."""
    results = sorted(path.name for path in (ROOT / "docs" / "results").glob("*.md"))
    found = {"Recipes": [{"Results": [f"results/{name}" for name in results]}], "Reference": reference()}
    for entry in config.nav or []:
        for name in found.keys() & entry.keys():
            entry[name] += found[name]
    return config


def reference() -> list[Any]:
    """The navigation of the pages of choices."""
    own = [
        {title: [{name: place(group, name)} for name in choices(group)]} for group, title in OWN_PAGES.items()
    ]  # fmt: skip
    return [*own, {"Components": [{f"{group}=": place(group)} for group in GROUPS.values() if group not in OWN_PAGES]}]


def place(group: str, choice: str | None = None) -> str:
    """Where in the site a choice's page lies, or its group's."""
    return f"reference/{group}/{choice}.md" if choice else f"reference/{group}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """All pages that are made and not written."""
    made = {name: (ROOT / file).read_text(encoding="utf-8") for file, name in FRONT_MATTER.items()}
    for path, text in (made | pages()).items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links between files of the repository as links between pages of the site; one to a file that is no part of the
    site becomes its text."""
    here = page.file.src_uri
    origin = next((file for file, name in FRONT_MATTER.items() if name == here), f"docs/{here}")

    def moved(match: re.Match[str]) -> str:
        if "://" in match[2]:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        path = FRONT_MATTER.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(path) is None:
            return match[1] if (ROOT / posixpath.dirname(origin) / match[2]).exists() else match[0]
        return f"[{match[1]}]({posixpath.relpath(path, posixpath.dirname(here) or '.')}{match[3] or ''})"

    return LINK.sub(moved, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """In pages made of docstrings, the name of a page in docs/ as a link to it."""
    here = page.file.src_uri
    if not here.startswith("reference/"):
        return content
    return re.sub(
        r"\bdocs/([\w/]+)\.md\b",
        lambda match: f'<a href="{posixpath.relpath(match[1], posixpath.dirname(here))}.html">{match[1]}</a>', content,
    )  # fmt: skip


def pages() -> dict[str, str]:
    """The pages of choices, by their place."""
    found: dict[str, str] = {}
    for group in GROUPS.values():
        named = choices(group)
        if group in OWN_PAGES:
            found |= {place(group, name): about(group, name, "#") for name in named}
        else:
            found[place(group)] = "\n\n".join([f"# `{group}=`", *(about(group, name, "##") for name in named)])
    return found


def about(group: str, choice: str, heading: str) -> str:
    """A choice: what it is, what is taken with it, how it is used, what its module says, its keys, and its class."""
    word = f"{'+' if group == 'reward/term' else ''}{group}={choice}"
    known = keys(group, choice, place_of(group, choice, FOLDERS), FOLDERS)
    parts = [f"{heading} `{word}`", f"{cell(description(text_of(group, choice, FOLDERS)))}."]
    if words := said(group, choice, FOLDERS):
        parts.append(
            f"Taken with it where the command line leaves it open: {' '.join(f'`{other}`' for other in words)}."
        )
    parts.append(f"```bash\n{example(word, known)}\n```")
    found = classes(group, choice)
    modules = list(dict.fromkeys(target.rpartition(".")[0] for target in found))
    here = posixpath.dirname(place(group, choice if group in OWN_PAGES else None))
    return "\n\n".join([*parts, *map(documented, modules), table(known, here), *map(documented, found)])


def example(word: str, known: dict[str, Key]) -> str:
    """A command that uses a choice, with the keys that have to be given."""
    command = "pretrain" if word in PRETRAINED else "train"
    given = [
        f"{key.name}=…" for key in known.values() if key.value == MISSING or key.comment.startswith("must be given")
    ]
    return " ".join(["rlgen", command, word, *given])


def table(known: dict[str, Key], here: str) -> str:
    """The keys of a choice, its components with links from a page in the folder `here`; nothing where it has none."""
    rows = [
        f"| {named(key, here)} | {code(key.value)} | {cell(key.comment)} |"
        for key in known.values()
    ]  # fmt: skip
    return "\n".join(["| key | default | what it is |", "| --- | --- | --- |", *rows]) if rows else "It has no keys."


def named(key: Key, here: str) -> str:
    """A key; one that chooses a component leads to what there is to choose from."""
    group = key.name.removesuffix("=")
    if group == key.name or group not in GROUPS.values():
        return code(key.name)
    choice = (key.value if key.value in choices(group) else choices(group)[0]) if group in OWN_PAGES else None
    return f"[{code(key.name)}]({posixpath.relpath(place(group, choice), here)})"


def code(text: str) -> str:
    """A value in a table."""
    return f"`{text}`".replace("|", "\\|") if text else ""


def cell(text: str) -> str:
    """A comment in a table, as plain text."""
    return re.sub(r"([|*_\[\]`])", r"\\\1", html.escape(text, quote=False))


def classes(group: str, choice: str) -> list[str]:
    """The class that a choice is built from; of several terms in one YAML, each term's."""
    target = target_of(group, choice)
    node = {} if target else parsed(text_of(group, choice, FOLDERS)) or {}
    nested = [part["_target_"] for part in node.values() if isinstance(part, dict) and "_target_" in part]
    return [target] if target else list(dict.fromkeys(nested))


def documented(name: str) -> str:
    """What the docstring of a class or of a module says, for mkdocstrings."""
    options = ["members: false", "show_root_heading: false", "show_root_toc_entry: false"]
    return "\n".join([f"::: {name}", "    options:", *(f"      {option}" for option in options)])
