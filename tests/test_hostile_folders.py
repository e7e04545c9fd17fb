"""A stranger's run folder runs nothing, tells nothing and writes nothing outside: it ends in one sentence."""

import json
import shutil
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from rlgen_cli.config.saved import components, read_config
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.runs.trainer import train
from tests.conftest import Rlgen, session, small
from tests.hostile import CONFIGS, FOLDERS, HARM, OWN, SECRET, SHELL, npz, plant_module, plant_pickle

VALUE = "the secret's value"


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody has tampered with."""
    folder = tmp_path_factory.mktemp("innocent") / "run"
    train(session(*small("agent=actor_critic", "reward=target"), "total_steps=40"), folder)
    return folder


@pytest.fixture
def run(innocent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in a working folder of its own, and a secret in the environment."""
    monkeypatch.setenv(SECRET, VALUE)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("it went to the network"))
    shutil.copytree(innocent, tmp_path / "run")
    return tmp_path / "run"


def refused(rlgen: Rlgen, *words: str) -> str:
    """The one sentence in which a command ends, having done no harm."""
    before = {path.name for path in Path().iterdir()}
    code, out, err = rlgen(*words)
    assert not Path(HARM).exists(), "it ran what the folder planted"
    assert {path.name for path in Path().iterdir()} <= before | {"cache"}, "it wrote outside"
    assert VALUE not in out + err, "it told a secret"
    assert code == 2, (code, out, err)
    sentences = [line for line in err.splitlines() if line.startswith("rlgen: ")]
    assert len(sentences) == 1, err
    assert err.endswith(f"{sentences[0]}\n"), err
    assert "Traceback" not in err
    assert all(c.isprintable() or c == "\n" for c in out + err)
    assert sentences[0].endswith((".", "?")), err
    return sentences[0]


@pytest.mark.parametrize("harm", CONFIGS)
def test_a_hostile_config_is_refused(harm, run, rlgen):
    CONFIGS[harm](run)
    refused(rlgen, "sample", "run=run", "n=2")


@pytest.mark.slow
@pytest.mark.parametrize("harm", CONFIGS)
def test_a_hostile_config_is_refused_by_all_commands(harm, run, rlgen):
    CONFIGS[harm](run)
    refused(rlgen, "eval", "run=run", "n=2")
    refused(rlgen, "train", "resume=run", "total_steps=80")
    refused(rlgen, "pretrain", "resume=run", "total_steps=80")


@pytest.mark.parametrize("harm", FOLDERS)
def test_a_hostile_folder_is_refused(harm, run, rlgen):
    FOLDERS[harm](run)
    refused(rlgen, "sample", "run=run", "n=2")
    refused(rlgen, "train", "resume=run", "total_steps=80")


def test_the_innocent_run_is_opened(run, rlgen):
    for words in (["sample", "run=run", "n=2"], ["train", "resume=run", "total_steps=80"]):
        code, _, err = rlgen(*words)
        assert code == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("harm", [*CONFIGS, *FOLDERS])
def test_a_hostile_guide_is_refused(harm, run, rlgen):
    (CONFIGS | FOLDERS)[harm](run)
    words = small("agent=cem", "brush=stroke", "agent.start.guide=run", "total_steps=8")
    refused(rlgen, "train", *words, "hydra.run.dir=new")
    assert not Path("new").exists()


PRIOR = [*small("agent=actor_critic", "reward=target", "agent.anchor.prior=run"), "total_steps=8", "hydra.run.dir=new"]


@pytest.mark.parametrize("harm", [name for name in FOLDERS if name.startswith(("weights", "manifest", "state"))])
def test_hostile_weights_are_no_prior(harm, run, rlgen):
    FOLDERS[harm](run)
    refused(rlgen, "train", *PRIOR)


@pytest.mark.parametrize("harm", ["log is a link", "samples are a link", "config is a pipe"])
def test_what_a_prior_does_not_read_does_no_harm(harm, run, rlgen):
    FOLDERS[harm](run)
    code, _, err = rlgen("train", *PRIOR)
    assert code == 0, err
    assert not Path(HARM).exists()


@pytest.mark.parametrize("key", ["agent.anchor.prior", "agent.start.guide"])
def test_files_as_priors_and_guides_are_read_as_data(key, tmp_path, rlgen):
    agent = "actor_critic" if "anchor" in key else "cem"
    words = small(f"agent={agent}", "brush=stroke", "total_steps=8", "hydra.run.dir=new")
    for path in (plant_pickle(), npz(Path("planted.npz")), plant_pickle("again.npz")):
        refused(rlgen, "train", *words, f"{key}={path}")


# Values with which a stranger may try it, below a key that is there or a new one.
LEAVES = st.one_of(
    st.sampled_from(["os.system", "builtins.exec", "subprocess.run", SHELL, "planted:score", "???", "null", "../..", "/etc"]),
    st.sampled_from(["${oc.env:HOME}", "${oc.decode:'{a: 1}'}", "$\\{x}", "${", "!!python/name:os.system", "*a", "&a"]),
    st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(),
)  # fmt: skip
KEYS = st.sampled_from(["_target_", "_partial_", "_args_", "path", "trust", "command", "args", "device", "x"])
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=6
)
FUNCTIONS = st.sampled_from([
    "os.system", "subprocess.Popen", "builtins.eval", "planted.score", "importlib.import_module", "torch.hub.load",
    f"{OWN}.generators.from_file.from_code", f"{OWN}.rewards.function._module", f"{OWN}.config.instantiate.component",
    f"{OWN}.runs.trainer.train", f"{OWN}.core.files.write_atomic", f"{OWN}.rewards.function.Function",
])  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_variant_of_a_config_names_more_than_the_package_does(data, innocent, tmp_path_factory):
    """Anywhere in the config, a component of somebody else or any tree of values: what is read holds neither a
    reference nor a component that no YAML of the package names."""
    node: Any = yaml.safe_load((innocent / "config.yaml").read_text())
    place = node
    while True:
        inner = [key for key, value in place.items() if isinstance(value, dict)]
        if not inner or data.draw(st.booleans()):
            break
        place = place[data.draw(st.sampled_from(inner))]
    key = data.draw(st.sampled_from(list(place)) | KEYS)
    planted = data.draw(TREES | FUNCTIONS.map(lambda name: {"_target_": name, "path": "planted:score", "args": SHELL}))
    place[key] = planted
    path = tmp_path_factory.mktemp("variant") / "config.yaml"
    path.write_text(yaml.safe_dump(node))
    found = read_or_sentence(path)
    if isinstance(found, str):
        assert "\n" not in found
        return
    assert "${" not in path.read_text()
    for target in targets(node):
        assert target in components()
    said = yaml.safe_load(path.read_text())
    assert OmegaConf.to_container(found, resolve=True) == {key: said[key] for key in said if key != "format"}


def read_or_sentence(path: Path) -> DictConfig | str:
    """The config, or why there is none."""
    try:
        return read_config(path, Trust())
    except UserError as error:
        return str(error)


def targets(node: Any) -> list[Any]:
    """All that the values of a tree name as `_target_`."""
    if isinstance(node, dict):
        own = [node["_target_"]] if node.get("_target_") is not None else []
        return own + [target for value in node.values() for target in targets(value)]
    return [target for value in node for target in targets(value)] if isinstance(node, list) else []


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(alphabet=string.printable, max_size=200) | st.binary(max_size=200))
def test_any_bytes_as_a_config_are_a_config_or_a_sentence(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("bytes") / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found = read_or_sentence(path)
    assert not isinstance(found, str) or found.startswith("run: ") or "_target_: this saved config names" in found


def test_trust_on_the_command_line_allows_a_function(run, rlgen):
    module = plant_module()
    module.write_text("def score(x):\n    return x.mean((1, 2, 3))\n")
    CONFIGS["function in a file"](run)
    module.write_text("def score(x):\n    return x.mean((1, 2, 3))\n")
    assert str(module) in refused(rlgen, "sample", "run=run", "n=2")
    code, _, err = rlgen("sample", "run=run", "n=2", f"trust=[{module}]")
    assert code == 0, err


def test_what_a_hostile_status_names_as_best_is_not_followed(run, rlgen):
    Path("outputs").mkdir()
    shutil.move(run, "outputs/run")
    for best in ("../../..", "/etc", ["x"], 5, "step_999999999"):
        (Path("outputs/run") / "status.json").write_text(json.dumps({"best": best}))
        assert "has no best checkpoint" in refused(rlgen, "sample", "run=best", "n=2")


def test_the_corpus_is_as_large_as_promised():
    assert len(CONFIGS) + len(FOLDERS) >= 100
