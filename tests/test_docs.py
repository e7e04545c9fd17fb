"""The README and the docs: every code block runs, and every key, choice and file that they name exists."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import save_file

from rlgen_cli.cli import main as cli
from rlgen_cli.cli.listing import GROUPS
from rlgen_cli.config.compose import AGENT_GROUPS, ENV_GROUPS, composed
from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.config.renamed import new_choice, new_name
from rlgen_cli.core.errors import UserError
from rlgen_cli.generators.architectures import MLPGenerator
from rlgen_cli.sweeps.sweep import first_value
from tests.conftest import (
    compose,
    small,
    write_chorales,
    write_clip,
    write_diffusers,
    write_idx,
    write_picture,
    write_tunes,
)

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=[path.stem for path in DOCUMENTS])

# Pages whose lines take long, and run with the slow tests.
LONG = (
    "artists", "evaluation", "scaling", "trackers", "music", "latent", "quickstart", "report", "export", "recipes",
    "diffusion", "paint",
)  # fmt: skip

# Lines that are not run here, and why.
NOT_RUN = {
    "make": "installs, or takes minutes; its targets are looked up",
    "pip install": "needs the network",
    "uv": "needs the network",
    "docker": "needs a daemon",
    "rlgen watch": "serves until it is stopped",
    "rlgen push": "needs the network; test_export.py runs it with a hub of its own",
}
WRITTEN = {"bars.py", "elite.py", "env/bars.yaml"}  # by rlgen new, in the guide
SHORT = [
    "total_steps=64", "log_interval=32", "eval_interval=64", "epochs=1", "env.bar=16", "env.brush.grid=4",
    "env.steering.directions=4", "agent.network.recurrent.width=8", "agent.network.body.embed=4",
]  # fmt: skip
# Of the small settings, what a line says itself is kept.
KEPT = ("agent.anchor.prior", "env.size=16", "env.size=32")
# Files that runs and generators of the user's own have, and files of examples.
OF_RUNS = {
    "mine/policy.onnx",
    "config.yaml",
    "status.json",
    "metrics.jsonl",
    "scores.json",
    "results.json",
    "samples.txt",
    "config.json",
}
RECIPES = "| recipe | what it does | tuned for | table |"


class Block(NamedTuple):
    """A fenced code block."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that this is the content of, if its first line says one."""
        match = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return match.group(1) if match else None


def blocks(document: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```(\S*)\n(.*?)^```$", document.read_text(), re.M | re.S)]


def inline(document: Path) -> list[str]:
    """What stands in backticks outside the blocks."""
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose)


@pytest.mark.parametrize(
    "document",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in LONG)) for path in DOCUMENTS],
)
def test_code_blocks_run(document, tmp_path, monkeypatch):
    """In one folder, in order, each line made to take a second or two."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_module.py").write_text("def my_function(pictures):\n    return pictures.mean((1, 2, 3))\n")
    for block in blocks(document):
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text.partition("\n")[2])
        elif block.language == "python":
            exec(compile(block.text, f"{document.name}, python", "exec"), {})
        elif block.language == "bash":
            for line in block.text.splitlines():
                run_line(line)
        else:
            assert block.language == "text", f"{document.name} has a block of an unknown kind: {block}"


def run_line(line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "PYTHONPATH=.":  # the working folder is on the path
        words = words[1:]
    if words[0] == "rlgen" and " ".join(words[:2]) not in NOT_RUN:
        cli.dispatch(runnable(words[1], words[2:]))
        return
    if words[0] == "torchrun":
        at = words.index("rlgen")
        command = ["torchrun", *words[1:at], "rlgen", *runnable(words[at + 1], words[at + 2 :])]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, check=True, timeout=200, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"})
        return
    assert any(line.startswith(f"{start} ") for start in NOT_RUN), f"this line is neither run nor listed: {line}"
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), f"make has no target {words[1]}"


def runnable(command: str, words: list[str]) -> list[str]:
    """A line of the docs with its placeholders filled in, and small."""
    words = [filled(word, words) for word in words]
    if command == "sample":
        return [command, *words, "n=2"]
    if command == "eval":
        return [command, *words, "n=5", "updates=2"]
    if command == "paint":
        return [command, *words, "width=48", "strokes=20", "refine=2", "terms.style.updates=4"]
    if any(word.startswith("resume=") for word in words):
        return [command, *words, "total_steps=96"]
    if command not in (*cli.TRAINERS, "tune"):
        return [command, *words]
    if any(word.startswith("sweep.resume=") for word in words):
        return [command, *words]
    config = composed(command, [first_value(word) for word in words if word != "-m"], keep_hydra=True)
    node, there = OmegaConf.to_container(config.hydra.runtime.choices), OmegaConf.to_container(config)
    real = real_data(config) if "data" in config else []
    assert isinstance(node, dict)
    shrunk = small(f"env={node['env']}", f"agent={node['agent']}", f"reward={node.get('reward', 'none')}")[3:]
    own = {word.partition("=")[0] for word in words if word.startswith(KEPT)}
    if any(word.startswith("experiment=painter") for word in words):  # whose network fits tiles of its own size
        own, shrunk = own | {"env.size", "env.max_steps"}, [*shrunk, "data.count=20"]
    shrunk = [word for word in [*shrunk, *SHORT] if has(there, word.partition("=")[0])]
    shrunk = [word for word in shrunk if word.partition("=")[0] not in own]
    return [command, *words, *shrunk, *real, *(["tune.trials=1"] if command == "tune" else [])]


def has(tree: Any, key: str) -> bool:
    """Whether a config has a dotted key."""
    for part in key.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return False
        tree = tree[part]
    return True


def filled(word: str, words: list[str]) -> str:
    """A word with its placeholders filled in."""
    if word.startswith("env.generator.path=") and "generator=diffusers" in words:
        return word.replace("FOLDER", str(write_diffusers(Path("diffusion"), size=12)))
    if word.startswith("env.generator.path="):
        return word.replace("FOLDER", str(write_generator(Path("generator"))))
    if word in ("FILE", "image=FILE", "style=FILE"):
        return word.replace("FILE", str(write_picture(Path("mine.png"))))
    if "FILE" in word:
        Path("text.txt").write_text("the quick brown fox jumps over the lazy dog " * 9)
    if "RUN" in word and not Path("outputs/earlier").exists():
        run_earlier()
    if word == "run=latest" and not Path("outputs").exists():
        run_earlier()
    sequences = any(other.startswith(("data=midi", "set=")) for other in words)
    if "FOLDER" in word:
        write_tunes(Path("tunes")) if sequences else write_pictures(Path("pictures"))
    folder = "tunes" if sequences else "pictures"
    word = word.replace("FOLDER", folder).replace("FILE", "text.txt").replace("RUN", "outputs/earlier")
    return re.sub(r"outputs/\w+/\w+/<run>", lambda match: newest(match.group(0)), word)


def newest(pattern: str) -> str:
    """The newest run that `outputs/<env>/<agent>/<run>` may mean."""
    return str(max(Path(pattern).parent.iterdir(), key=lambda run: run.stat().st_mtime))


def run_earlier() -> None:
    """A run of music, for lines about one."""
    words = small("env=music", "agent=random", "data=midi", f"data.path={write_tunes(Path('tunes'))}")
    words = [word for word in words if "data.count" not in word]
    cli.dispatch(["train", *words, "env.bar=16", "hydra.run.dir=outputs/earlier"])


def real_data(config: DictConfig) -> list[str]:
    """Small files in the form of data that is downloaded, or lies elsewhere."""
    kind = config.data._target_.rpartition(".")[2]
    if kind == "IdxImages":
        return [f"data.root={write_idx(Path('idx'))}"]
    if kind == "Chorales":
        return [f"data.path={write_chorales(Path('chorales.json'))}"]
    clip = "clip" in config.reward.terms
    return [f"reward.terms.clip.model={write_clip(Path('clip'))}"] if clip else []


def write_pictures(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def write_generator(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    arguments: dict[str, Any] = {"sample": [3, 16, 16], "latent": 6, "widths": [8]}
    save_file(MLPGenerator(**arguments).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"class": "MLPGenerator", "arguments": arguments}))
    return folder


def leaves(node: Any, path: str) -> Iterator[str]:
    """All dotted keys of a tree, inner ones too."""
    yield path
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))


def known_keys() -> set[str]:
    """Every key that some choice has, read from the YAMLs themselves."""
    places = {"env": "env", "agent": "agent", "reward": "reward", "data": "data", "network": "agent.network"}
    places |= {"network/kind": "agent.network"}
    places |= {
        "generator/network": "env.generator.network",
        "network/body": "agent.network.body",
        "network/recurrent": "agent.network.recurrent",
    }
    places |= {group: f"env.{group}" for group in ENV_GROUPS} | {group: f"agent.{group}" for group in AGENT_GROUPS}
    places |= {".": "", "pretrain": ""}
    found: set[str] = set()
    for group, place in places.items():
        for file in (config_folder() / group).glob("*.yaml"):
            found |= set(leaves(yaml.safe_load(file.read_text()), place))
    for file in (config_folder() / "reward" / "term").glob("*.yaml"):
        together = file.read_text().startswith("# @package reward.terms\n")
        place = "reward.terms" if together else f"reward.terms.{file.stem}"
        found |= set(leaves(yaml.safe_load(file.read_text()), place))
    for file in (config_folder() / "logger").glob("*.yaml"):
        found |= set(leaves(yaml.safe_load(file.read_text()), f"logger.{file.stem}"))
    return found | set(leaves(OmegaConf.to_container(composed("paint", ["files=none"]).terms), "terms"))


KEYS = known_keys()
SETTING = re.compile(r"\+?([\w/]+)(\.[\w.]+)?=(.*)")


def check_setting(word: str, where: str) -> None:
    """`group=choice`, `group=one|other`, or `key=value`: the group and its choices, or the key, exist."""
    match = SETTING.fullmatch(word)
    assert match is not None, where
    group, rest, value = match.groups()
    if group.startswith("hydra"):
        return
    if rest is None and group in GROUPS.values():
        terms = choices("reward/term") if group == "reward" and value.startswith("[") else []
        for choice in re.split(r"[|,]", value.strip("[]")):
            there = not choice or choice in [*choices(group), *terms] or choice in ("X", "RUN", "NAME")
            assert there, f"{where}: {group} has no choice {choice}"
    else:
        assert group + (rest or "") in KEYS, f"{where}: there is no key {group}{rest or ''}"


@documents
def test_keys_choices_and_files_in_the_text_exist(document):
    for text in inline(document):
        where = f"{document.name}: `{text}`"
        words = text.split()
        if words[0] == "rlgen" and len(words) > 1:
            check_command(shlex.split(text)[1:])
        elif all(SETTING.fullmatch(word) for word in words) and not text.startswith("PYTHONPATH"):
            for word in words:
                check_setting(word, where)
        elif re.fullmatch(r"(env|agent|reward|data)\.\w[\w.]*", text) and not text.endswith((".py", ".yaml")):
            assert text in KEYS, f"{where}: there is no such key"
        elif re.fullmatch(r"[\w./-]+\.(py|md|yaml|json|jsonl|toml|txt|png|npz)(: \w+)?", text):
            check_file(document, text, where)
        elif text.endswith("/") and "<" not in text:
            assert any((ROOT / "rlgen_cli").rglob(text)), f"{where}: there is no such folder"


def check_command(words: list[str]) -> None:
    """A command in the text: it composes."""
    assert words[0] in (*cli.COMMANDS, "-sc"), words
    if words[0] not in cli.HYDRA_COMMANDS or any(word.startswith(("--", "resume=")) for word in words):
        return
    sweep = "-m" in words
    given = [re.sub(r"(=[^,\[]*),.*", r"\1", word) if sweep else word for word in words[1:] if word != "-m"]
    composed(words[0], given)


def check_file(document: Path, text: str, where: str) -> None:
    """A file, perhaps with the name of something that it defines."""
    path, _, name = text.partition(": ")
    own = {block.file for block in blocks(document)}
    if path in OF_RUNS | WRITTEN or path in own:
        return
    places = [place / path for place in (ROOT, ROOT / "docs", ROOT / "rlgen_cli")]
    there = [place for place in places if place.is_file()]
    if "/" not in path:  # in a table of what a package holds
        there += (ROOT / "rlgen_cli").rglob(path)
    assert there, f"{where}: there is no such file"
    if name:
        assert re.search(rf"^(def|class) {name}\b", there[0].read_text(), re.M), f"{where}: it defines no {name}"


@documents
def test_links_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)#\s]+)\)", document.read_text()):
        assert link.startswith("https://") or (document.parent / link).exists(), f"{document.name}: {link}"


def table(document: Path, header: str) -> list[list[str]]:
    """The rows of the table with this header line, cell by cell."""
    lines = document.read_text().split(f"\n{header}\n")[1].splitlines()[1:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.sub(r"\\\|", "¦", line).strip("|").split("|")])
    return rows


def test_the_table_of_choices_has_every_choice():
    choices_page = ROOT / "docs" / "choices.md"
    rows = {row[0].strip("`+="): re.findall(r"`(\w+)`", row[1]) for row in table(choices_page, "| group | choices |")}
    assert set(rows) == set(GROUPS.values()) - {"term"}
    rows["reward/term"] = [*rows["reward/term"], *rows["reward"]]
    for group, named in rows.items():
        terms_or_rewards = {*choices(group), *(choices("reward") if group == "reward/term" else ())}
        assert set(choices(group)) <= set(named), f"{group}= lacks some"
        assert set(named) <= terms_or_rewards, f"{group}= has too many"


def test_the_table_of_recipes_has_every_experiment_with_the_agents_it_is_tuned_for():
    rows = {row[0].strip("`").partition("=")[2]: row[2] for row in table(ROOT / "docs" / "recipes.md", RECIPES)}
    assert sorted(rows) == choices("experiment")
    for name, agents in rows.items():
        assert sorted(re.findall(r"`agent=(\w+)`", agents)) == choices(f"experiment/tuned/{name}")


# Old choices for which the nearest valid name is the new one, so that they need no entry.
NEAREST = {"reward=novelty"}


def test_the_changelogs_table_of_new_names():
    rows = table(ROOT / "CHANGELOG.md", "| was | is |")
    assert rows
    for was, now in rows:
        for word in re.findall(r"`([^`]+)`", now):
            if SETTING.fullmatch(word):
                check_setting(word, f"CHANGELOG: {word}")
            elif word.startswith(("env.", "agent.", "reward.")):
                assert word in KEYS, f"CHANGELOG: there is no key {word}"
        for word in re.findall(r"`([^`]+)`", was):
            key, equals, choice = word.partition("=")
            if "." in key and not equals:
                assert new_name(key), f"the old key {key} is not known to config/renamed.py"
            elif equals and "." not in key and word not in NEAREST:
                assert new_choice(key, choice), f"the old choice {word} is not known to config/renamed.py"


def test_a_pretrained_policy_is_tuned_by_what_it_needs():
    """An entropy bonus and large steps damage a model that was pretrained (docs/music.md has the numbers)."""
    agent = compose("env=music", "agent=ppo_tune", "agent.anchor.prior=start").agent
    assert (agent.objective.entropy_coef.start, agent.objective.entropy_coef.end) == (0.0, 0.0)
    assert (agent.optimizer.learning_rate.start, agent.optimizer.learning_rate.end) == (2e-4, 5e-5)
    assert agent.anchor.kl_coef == 0.1
    assert agent.objective.clip_range == compose("agent=ppo").agent.objective.clip_range


@documents
def test_lines_that_tune_a_pretrained_policy_use_it(document):
    for block in blocks(document):
        for line in block.text.splitlines():
            assert "agent.anchor.prior=" not in line or "agent=ppo_tune" in line, line


def test_the_pretrained_policy_must_be_named():
    with pytest.raises(UserError, match=r"agent\.anchor\.prior: must be given"):
        cli.dispatch(["train", "env=music", "agent=ppo_tune"])


def test_the_tests_that_prove_what_is_promised_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 20
    for path, name in named:
        assert not name or f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"
        assert (ROOT / path).is_file(), path
