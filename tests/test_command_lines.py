"""What people type: each line runs, or says in one sentence what is wrong and what would be right."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rlgen_cli.cli.listing import GROUPS, keys, place_of
from rlgen_cli.config import goes_with
from rlgen_cli.config.arguments import prepared
from rlgen_cli.config.compose import composed
from rlgen_cli.config.locate import choices, config_folder
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.schedules import Linear
from rlgen_cli.runs import log as run_log
from tests.conftest import Rlgen, write_tunes

TINY = (
    "total_steps=32 num_envs=4 eval_episodes=4 log_interval=32 eval_interval=32 checkpoint_interval=32 threads=1 "
    "device=cpu"
)
PLANNED = f"env.size=12 env.max_steps=4 data.per_class=2 {TINY}"
CANVAS = f"{PLANNED} agent.network.body.width=8"
SONG = f"env=music env.length=8 env.bar=4 env.history=4 data.count=12 {TINY}"

RIGHT = [
    f"train env=tiny -m seed=1,2 {TINY}",
    f"train {TINY} env=tiny --multirun seed=1,2",
    f"train env=TINY {TINY}",
    f"train ENV=tiny agent=DQN {TINY}",
    f"train env=tiny agent=Policy_Gradient {TINY}",
    f"train env=tiny data=null {TINY}",
    f"train env=tiny task=null experiment=null {TINY}",
    f"train env=tiny reward=[target,coverage] {TINY}",
    f"train env=tiny reward=[target] reward.terms.target.weight=2 {TINY}",
    f"train env=tiny agent.gamma=0.9 {TINY}",
    f"train env=tiny agent.exploration.epsilon=0.1 {TINY}",
    f"train env=tiny agent=ppo agent.optimizer.learning_rate=1e-3 agent.objective.entropy_coef=0 {TINY}",
    f"train env=tiny network/body=mlp {TINY}",
    f"train agent=ppo network/body=convolutions env.size=12 env.max_steps=2 data.per_class=2 {TINY}",
    f"train agent=ppo network/recurrent=gru {CANVAS}",
    f"train {SONG} agent=dqn network=gru",
    f"train {SONG} agent=dqn network=transformer",
    f"train agent=random brush=pixel {PLANNED}",
    f"train agent=ppo brush=stroke {CANVAS}",
    f"train agent=ppo brush=pixel agent.network.maps.channels=4 {CANVAS}",
    f"train data=folder 'data.path=my pictures (1) [a], it''s ü&' {CANVAS.replace('data.per_class=2', '')}",
    f"train data=folder data.path=~/pictures {CANVAS.replace('data.per_class=2', '')}",
    f"train reward=function reward.terms.function.path=./score.py:ink {CANVAS}",
    "train --version",
    "list agent=ppo",
    "list network=gru",
    "list reward/term=target",
]
WRONG = {
    "train resume=": r"resume: is empty; name a run's folder, or use resume=latest",
    "train resume=latest": r"resume: there is no run below outputs/ yet",
    "sample run=best": r"run: there is no run below outputs/ yet",
    "sample run=nowhere": r"run: nowhere is neither .* run=latest takes the newest run, run=best its best checkpoint",
    "train hello": r"hello: is no key=value; give one, as in env=pixel",
    "train env=tiny reward=null": r"reward: has no term; add one, as in \+reward/term=target",
    "train data=null": r"data: Canvas takes data; choose some",
    "train env=tiny network=null": r"network: cannot be null; valid are: .*gru",
    "train brush=null": r"brush: cannot be null; valid are: .*pen",
    "train damage=noise env=pixel": r"damage: env=pixel has none; use it with env=diffusion or env=latent_gan",
    "train env=tiny generator=r1": r"generator: env=tiny has none; use it with env=diffusion or env=latent_gan or env=latent_music",
    "pretrain env=diffusion reward=[symmetry]": r"reward: rlgen pretrain takes one reward by its name",
    "train agent=ppo replay=prioritized": r"replay: agent=ppo has none; use it with agent=dqn",
    "train env=latent_gan generator/network=unet2d": r"generator/network: is for generators that are diffusion models",
    "train reward=[target,nonsense]": r"reward/term=nonsense: there is no such choice",
    "train task=nothing": r"task=nothing: there is no such choice; valid are: denoise, generate",
    "train reward=function reward.terms.function.path=no.py:f": r"reward\.terms\.function\.path: no\.py:f cannot be impo",
    "train reward=function reward.terms.function.path=no:f": r"reward\.terms\.function\.path: no:f cannot be imported",
    "train reward=function reward.terms.function.path=no": r"must read FILE\.py:function or module:function",
    "train env=tiny device=mps": r"device: mps cannot be used here",
    "train 'agent.batch_size=[1,'": r"agent\.batch_size: must be a whole number, got '\[1,'",
    "train env=tiny agent.gamma=high": r"agent\.gamma: must be a number, or a schedule from start to end, got 'high'",
    "train data=folder data.path=~/nothing": r"data\.path: there is no folder /.*/nothing",
    "train data=folder 'data.path=a b\"c'": r"data\.path: there is no folder a b\"c",
    "train experiment=sprites": r"paths\.data: names no folder, so sprites was not found; give paths\.data=FOLDER with sprites in it, or",
    "train experiment=sprites paths.data=here": r"paths\.data: here holds no sprites; give",
    "train experiment=steer_ppo": r"experiment=steer_ppo: is called experiment=steer agent=ppo now",
    "train -m experiment=resketch agent=dqn,ppo": r"agent: cannot be swept within an experiment",
    "train agent=dqn network=q_lstm": r"network=q_lstm: is called network=lstm now",
    "list agent=nobody": r"list agent=nobody: there is no such choice; valid are: actor_critic",
    "list nothing": r"list nothing: there is no such group",
}  # fmt: skip


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a function, and pictures in folders whose names a shell would quote."""
    Path("score.py").write_text("def ink(x):\n    return x.mean((1, 2, 3))\n")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.delenv("RLGEN_DATA", raising=False)
    for folder in ("my pictures (1) [a], its ü&", "pictures"):
        Path(folder).mkdir()
        for i in range(12):
            Image.new("L", (20, 20), 20 * i).save(f"{folder}/{i}.png")


@pytest.mark.parametrize("line", RIGHT)
def test_a_line_runs(line: str, rlgen: Rlgen, place: None) -> None:
    code, out, err = rlgen(*shlex.split(line))
    assert code == 0, err
    assert out


@pytest.mark.parametrize("line", WRONG)
def test_a_line_says_what_is_wrong(line: str, rlgen: Rlgen, place: None) -> None:
    code, _, err = rlgen(*shlex.split(line))
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert re.search(WRONG[line], err), err


def test_latest_and_best(rlgen: Rlgen) -> None:
    assert rlgen(*shlex.split(f"train env=tiny {TINY}"))[0] == 0
    for line in (
        "sample run=latest n=2 format=png",
        "sample run=best n=2 format=png",
        "train resume=latest total_steps=64",
    ):
        code, out, err = rlgen(*shlex.split(line))
        assert code == 0, err
        assert out


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("data.path=a b", "data.path='a b'"),
        ("run=it's", r"run='it\'s'"),
        ("out=C:\\", r"out='C:\\'"),
        ("run='quoted already'", "run='quoted already'"),
        ("agent.anchor.prior=none", "agent.anchor.prior=none"),
        ("reward.terms.clip.prompt=a (red) star!", "reward.terms.clip.prompt='a (red) star!'"),
        ("env.size=12", "env.size=12"),
        ("agent=PPO", "agent=ppo"),
        ("reward=[Target,COVERAGE]", "reward=[target,coverage]"),
        ("agent=ppo,dqn", "agent=ppo,dqn"),
        ("~reward", "~reward"),
    ],
)
def test_words_are_prepared_as_hydra_reads_them(typed: str, wanted: str) -> None:
    assert prepared([typed]) == [wanted]
    assert prepared([wanted]) == [wanted]


def test_flags_come_first_with_their_values() -> None:
    words = prepared(["env=tiny", "-m", "seed=1,2", "--config-dir", "my conf", "agent=dqn"])
    assert words == ["-m", "--config-dir", "my conf", "env=tiny", "seed=1,2", "agent=dqn"]


def test_paths_of_a_sweep_are_quoted_one_by_one() -> None:
    assert prepared(["-m", "data.path=a b,c"]) == ["-m", "data.path='a b','c'"]


def test_a_number_is_a_constant_schedule() -> None:
    schedule = Linear.constant(0.3)
    assert [schedule(progress) for progress in (0.0, 0.5, 1.0)] == [0.3, 0.3, 0.3]


def test_published_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment's variable, and before it by the key; MNIST, which can be downloaded, may be missing."""
    (tmp_path / "one" / "sprites").mkdir(parents=True)
    (tmp_path / "two" / "mnist").mkdir(parents=True)
    monkeypatch.setenv("RLGEN_DATA", str(tmp_path / "one"))
    assert composed("train", ["experiment=sprites"]).data.path == str(tmp_path / "one" / "sprites")
    assert composed("train", ["data=mnist"]).data.root is None
    two = f"paths.data={tmp_path / 'two'}"
    assert composed("train", ["data=mnist", two]).data.root == str(tmp_path / "two" / "mnist")
    assert composed("train", ["data=mnist", two, "data.root=elsewhere"]).data.root == "elsewhere"


@pytest.mark.parametrize("group", sorted(set(GROUPS.values())))
def test_every_key_has_a_line(group: str) -> None:
    folders = [config_folder()]
    for choice in choices(group):
        for key in keys(group, choice, place_of(group, choice, folders), folders).values():
            assert key.comment, f"{group}={choice}: {key.name}"


def test_a_key_that_an_experiment_sets_is_explained_as_where_it_comes_from(rlgen: Rlgen) -> None:
    _, out, _ = rlgen("list", "experiment=resketch")
    assert re.search(r"total_steps +1400000 +environment steps", out)  # rlgen train's
    assert re.search(r"env\.brush\.reach +3 +the longest move", out)  # its brush's
    assert re.search(r"env\.start +prior +auto \(mean", rlgen("list", "task=generate")[1])  # of what goes with it


def test_terms_that_share_a_yaml_are_named_as_the_config_has_them(rlgen: Rlgen) -> None:
    _, out, _ = rlgen("list", "term=music_theory")
    assert re.search(r"reward\.terms\.leap_doubled\.weight +1\.0 +of this score", out)
    assert composed("train", ["reward=music_theory"]).reward.terms.leap_doubled.weight == 1.0


def test_lists_show_what_a_choice_builds_on(rlgen: Rlgen) -> None:
    _, out, _ = rlgen("list", "agent=ppo")
    assert re.search(r"agent\.num_steps +16 +per environment and update", out)  # its own, with its base's comment
    assert re.search(r"agent\.network\.std +1\.0 ", out)
    assert re.search(r"optimizer= +adam +rlgen list optimizer=adam", out)
    assert "agent.network.maps.channels" not in rlgen("list", "network=gru")[1]


def test_a_file_that_is_no_python_says_so(rlgen: Rlgen) -> None:
    Path("broken.py").write_text("def f(:\n")
    code, _, err = rlgen(*shlex.split(f"train reward=function reward.terms.function.path=broken.py:f {CANVAS}"))
    assert code == 2
    assert "reward.terms.function.path: broken.py:f cannot be imported (SyntaxError" in err


def test_agents_are_not_swept_within_an_experiment() -> None:
    with pytest.raises(UserError, match="cannot be swept"):
        composed("train", ["experiment=resketch", "agent=dqn,ppo"])


def test_a_reward_that_is_no_number_stops_the_run(rlgen: Rlgen) -> None:
    Path("score.py").write_text("def nan(x):\n    return x.mean((1, 2, 3)).log() - x.mean((1, 2, 3)).log()\n")
    words = "train reward=[coverage,function] reward.terms.function.path=score.py:nan hydra.run.dir=run"
    code, _, err = rlgen(*shlex.split(f"{words} {CANVAS}"))
    assert code == 2
    assert re.search(
        r"^rlgen: reward\.terms\.function: gave nan or infinity at step \d+, and must be finite; the batch", err
    )
    assert json.loads(Path("run/status.json").read_text())["status"] == "failed"
    assert not Path("run/checkpoints").exists()


@pytest.mark.slow
def test_a_training_goes_on_when_its_reader_has_gone() -> None:
    """As in `rlgen train … | head -1`."""
    words = shlex.split(f"train env=tiny {TINY.replace('total_steps=32', 'total_steps=640')} hydra.run.dir=run")
    command = [sys.executable, "-m", "rlgen_cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    assert json.loads(Path("run/status.json").read_text())["status"] == "finished"


def test_what_data_leaves_out_is_said_and_kept(rlgen: Rlgen) -> None:
    write_tunes(Path("tunes"))
    Path("tunes/broken.mid").write_bytes(b"no MIDI")
    words = f"{SONG} data=midi data.path=tunes agent=random".replace("data.count=12", "").replace(
        "env.bar=4", "env.bar=16"
    )
    code, out, err = rlgen(*shlex.split(f"train {words} hydra.run.dir=run"))
    assert code == 0, err
    for said in ("data: read 6 MIDI files, rejected 1", "broken.mid"):
        assert said in out
        assert said in Path("run/train.log").read_text()


def test_samples_of_different_things_lie_in_different_folders(rlgen: Rlgen) -> None:
    assert rlgen(*shlex.split(f"train {PLANNED} agent=random hydra.run.dir=run"))[0] == 0
    lines = ["", "split=train", "seed=1", "n=3", "set={env.max_steps: 2}", "set={env.max_steps: 3}"]
    for line in lines:
        assert rlgen("sample", "run=run", "n=2", "format=png", *([line] if line else []))[0] == 0
    assert rlgen("train", "resume=run", "total_steps=64")[0] == 0
    assert rlgen("sample", "run=run", "n=2", "format=png")[0] == 0
    made = {path.name for path in Path("run/samples").iterdir() if path.is_dir()}
    assert len(made) == 1 + len(lines) + 1
    assert {"final", "step_000000032_test_n2_seed0", "step_000000064_test_n2_seed0"} <= made


def test_a_run_keeps_its_command(rlgen: Rlgen) -> None:
    assert rlgen("train", "agent=random", "hydra.run.dir=a run", *PLANNED.split())[0] == 0
    command = json.loads(Path("a run/environment.json").read_text())["command"]
    assert command.startswith("rlgen train agent=random 'hydra.run.dir=a run' env.size=12 ")


def test_the_end_compares_with_random_and_real(rlgen: Rlgen) -> None:
    """Real pictures are perfect copies of themselves, which random pens are not."""
    _, out, _ = rlgen(*shlex.split(f"train {PLANNED} agent=greedy +reward/term=ink_cost hydra.run.dir=run"))
    assert re.search(
        r"scores of 64 samples \(test data\) +this run +random +real data\n  score/target +-0\.\d+ +-\d\.\d+ +0\.0000",
        out,
    )
    scores = json.loads(Path("run/results.json").read_text())["scores"]
    assert scores["samples"]["target"] > scores["random"]["target"]
    assert "ink_cost" not in scores["real"]  # real pictures were not drawn
    _, out, _ = rlgen(*shlex.split(f"train {SONG} agent=random"))
    assert re.search(r"scale_consistency +\d\.\d+ +\d\.\d+ +\d\.\d+", out)


def test_help_has_a_line_for_each_key(rlgen: Rlgen) -> None:
    for command in ("train", "pretrain", "sample", "eval"):
        _, out, _ = rlgen(command, "--help")
        assert "ydra" not in out
        for line in out.split("keys, with their defaults\n")[1].splitlines():
            assert not line.startswith("  ") or len(line.split()) > 2, line


def test_a_run_says_how_far_it_is(rlgen: Rlgen, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far apart its records are: here after each step and each update of a stage."""
    monkeypatch.setattr(run_log, "SILENCE", 0.0)
    words = "train reward=classifier reward.terms.classifier.updates=3 agent=random env.size=12 env.max_steps=2"
    _, out, _ = rlgen(*shlex.split(f"{words} data.per_class=2 {TINY}"))
    assert re.search(r"classifier: update 2/3 \d+ updates/s ETA", out)
    assert [int(step) for step in re.findall(r"step (\d+)/32 \d+ steps/s ETA", out)] == list(range(4, 33, 4))
    assert "making the last samples" in out
    for what in ("evaluation", "last samples"):
        assert [f"{what}: step {i} of 2" in out for i in (0, 1)] == [True, True]
    assert "more of them: rlgen sample run=" in out


@pytest.mark.parametrize("word", ["experiment=", "agent=", "env=", "+reward/term=", "data="])
def test_a_choice_that_no_file_can_be_called_is_a_sentence(word: str, rlgen: Rlgen) -> None:
    code, _, err = rlgen("train", word + "x" * 5000)
    assert code == 2
    assert err.startswith("rlgen: ")
    assert err.count("\n") == 1


def test_a_network_goes_with_an_environment_where_the_agent_has_one() -> None:
    def brought(agent: str) -> list[str]:
        words = ["env=diffusion", f"agent={agent}"]
        return list(goes_with.companions(words, [config_folder()], {"env": "pixel", "agent": "dqn"}, []))

    assert brought("ppo") == ["network=denoiser", "agent.anchor.prior=env"]
    assert brought("reward_weighted") == ["network=denoiser"]
    assert brought("random") == []
    found = goes_with.companions(["sampler=flow_sde"], [config_folder()], {"env": "pixel", "agent": "dqn"}, [])
    assert list(found) == ["env=diffusion", "agent=nft", "network=denoiser"]
