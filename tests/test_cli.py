"""The command as a user meets it: help, lists, completion, and wrong input in one sentence with exit code 2."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from rlgen_cli.cli import main as cli
from rlgen_cli.cli.listing import GROUPS
from rlgen_cli.config.locate import config_folder
from tests.conftest import small, write_idx


def written() -> list[Path]:
    """Files below the working folder, but for the cache."""
    return [path for path in Path.cwd().rglob("*") if path.is_file() and "cache" not in path.parts]


@pytest.mark.parametrize("words", [["--help"], ["list"], ["list", "agent"], ["train", "--help"]])
def test_help_and_lists_import_no_torch(words):
    script = (
        f"import sys, atexit; sys.argv = {['rlgen', *words]}; import rlgen_cli.cli.main as c; "
        "atexit.register(lambda: print('torch' in sys.modules)); c.main()"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_completion_imports_no_torch():
    script = (
        "import sys, os; os.environ['COMP_LINE'] = 'rlgen train agent='; sys.argv = ['rlgen', '-sc', 'query=bash']; "
        "import rlgen_cli.cli.main as c; c.main(); print('torch' in sys.modules)"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert "agent=dqn" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_python_m_runs_the_same_command():
    done = subprocess.run([sys.executable, "-m", "rlgen_cli", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("rlgen ")


def test_help_names_every_subcommand(rlgen):
    code, out, _ = rlgen("--help")
    assert code == 0
    assert all(f"rlgen {name}" in out for name in cli.COMMANDS)


def test_hydras_own_help_and_config(rlgen):
    code, out, _ = rlgen("train", "--help")
    assert code == 0
    assert "total_steps" in out
    code, out, _ = rlgen("train", "--cfg", "job", "seed=7")
    assert code == 0
    assert "seed: 7" in out
    assert not written()


def test_list_knows_every_group():
    groups = {str(file.parent.relative_to(config_folder())) for file in config_folder().rglob("*.yaml")}
    chosen_by_the_agent = {group for group in groups if group.startswith(("network/kind", "experiment/tuned"))}
    assert groups - {".", "pretrain"} - chosen_by_the_agent == set(GROUPS.values())


@pytest.mark.parametrize("name", GROUPS)
def test_list_has_a_line_for_every_yaml(rlgen, name):
    code, out, _ = rlgen("list", name)
    assert code == 0
    for file in (config_folder() / GROUPS[name]).glob("*.yaml"):
        line = next(line for line in out.splitlines() if line.split()[:1] == [file.stem])
        assert len(line.split()) > 2, f"{file.name} says nothing of itself in its first comment"


def test_doctor(rlgen):
    code, out, _ = rlgen("doctor")
    assert code == 0
    assert "torch" in out
    assert "threads" in out
    for extra in ("benchmarks", "clip", "dev", "gym", "onnx", "soundfont"):
        assert re.search(rf"^extra {extra} +(complete|lacks .*: pip install rlgen\[{extra}\])$", out, re.MULTILINE)


WRONG = {
    "trian": r"did you mean train",
    "train agnet=dqn": r"agnet: .*did you mean agent",
    "train agent.gama=1": r"agent\.gama: .*did you mean gamma",
    "train env.colour=3": r"env\.colour: .*did you mean colours",
    "train total_step=5": r"total_step: .*did you mean total_steps",
    "train agent=dqnn": r"agent=dqnn: there is no such choice; did you mean dqn",
    "train env=canvas": r"env=canvas: there is no such choice; .*pixel",
    "train +reward/term=ink": r"reward/term=ink: .*ink_cost",
    "train reward=beauty": r"reward=beauty: there is no such choice; .*target",
    "train agent.batch_size=big": r"agent\.batch_size: must be a whole number, got 'big'",
    "train agent.batch_size=1.5": r"agent\.batch_size: must be a whole number, got 1\.5",
    "train agent.target_update.tau=true": r"agent\.target_update\.tau: must be a number, got True",
    "train agent.target_update.tau=2": r"agent\.target_update\.tau: must be in \(0, 1\], got 2",
    "train agent.backup.double=1": r"agent\.backup\.double: must be true or false, got 1",
    "train env.brush.line=curly": r"env\.brush\.line: must be smooth or pixel, got 'curly'",
    "train env.size=1000": r"env\.size: must be from 8 to 128, got 1000",
    "train env.brush.widths=3": r"env\.brush\.widths: must be a list",
    "train total_steps=0": r"total_steps: must be at least 1",
    "train seed=one": r"seed: must be a whole number, got 'one'",
    "train device=tpu": r"device: tpu cannot be used",
    "train precision=int4": r"precision: must be auto or float32 or bfloat16",
    "train agent.exploration.epsilon.share=0": r"agent\.exploration\.epsilon\.share: must be in \(0, 1\], got 0",
    "train agent.exploration.epsilon.start=x": r"agent\.exploration\.epsilon\.start: must be a number, got 'x'",
    "train agent.network.maps=big": r"agent\.network\.maps: must be a component",
    "train reward.terms.target.form=sum": r"reward\.terms\.target\.form: must be potential or terminal",
    "train reward.terms.target.weight=much": r"reward\.terms\.target\.weight: must be a number",
    "train reward.terms.target.norm=l3": r"reward\.terms\.target\.norm: must be l2 or l1",
    "train reward=function": r"reward\.terms\.function\.path: must be given",
    "train data=mnist data.root=nowhere": r"data\.root: there is no folder nowhere",
    "train data=folder": r"data\.path: must be given",
    "train data=folder data.path=nowhere": r"data\.path: there is no folder nowhere",
    "train brush=stroke agent=dqn": r"DQN cannot act in env\.brush=Stroke.*random",
    "train env.condition=none": r"reward\.terms\.target: needs target, .*env\.condition=auto",
    "train env=tiny reward=adversarial": r"reward\.terms\.adversarial: needs data",
    "train agent=dqn brush=spiral_continuous": r"DQN cannot act in env\.brush=SpiralContinuous.*actor_critic",
    "train agent=ppo agent.objective.clip_range=-1": r"agent\.objective\.clip_range: must be above 0, or null for none, got -1",
    "train agent.huber_delta=0": r"agent\.huber_delta: must be above 0, or null for squared errors, got 0",
    "train agent=ppo agent.num_minibatches=3": r"agent\.num_minibatches: must divide 2048 steps, got 3",
    "train agent=ppo agent.gama=1": r"agent\.gama: .*did you mean gamma",
    "train agent=ppo agent.anchor.prior=nowhere": r"agent\.anchor\.prior: must be none, start, the folder",
    "train agent=ppo network=grru": r"network=grru: there is no such choice; did you mean gru",
    "train agent=ppo network=q_mlp": r"network=q_mlp: is called network=mlp now",
    "train agent=policy_gradient baseline=group agent.baseline.group_size=7": r"agent\.baseline\.group_size: must divide num_envs = 128, got 7",
    "train agent=pathwise brush=pen": r"Pathwise cannot act in env\.brush=Pen.*another brush \(.*stroke",
    "train agent=ppo env=tiny network=vae": r"agent\.network\.body\._target_: an autoencoder needs images",
    "train brush=stroke agent=ppo env.brush.edge=0": r"env\.brush\.edge: must be above 0, got 0",
    "train env.observation_size=99": r"env\.observation_size: must be from 4 to env\.size = 28, or null, got 99",
    "train reward=adversarial reward.terms.adversarial.net.pairs=true env.condition=none": r"reward\.terms\.adversarial\.net\.pairs: a sample is judged",
    "train agent.trace=1": r"agent\.trace: is called agent\.td_lambda.* now",
    "train env.action=stroke": r"env\.action: is called brush= .* now",
    "train env=latent_gan env.gan.steps=3": r"env\.gan\.steps: is called env\.generator\.updates now",
    "train env=latent_gan gan=r1": r"gan: is called generator=r1 now",
    "train agent=ppo network=policy": r"network=policy: is called network=mlp now",
    "pretrain agent=likelihood": r"agent=likelihood: is called agent=maximum_likelihood now",
    "train env=latent_gan reward=repair": r"reward=repair: is called reward=reconstruction now",
    "train resume=nowhere": r"resume: nowhere is no run's folder",
    "train --config-dir=nowhere": r"--config-dir: there is no folder nowhere",
    "train agent=dqn agent=random=": r"agent=random=",
    "train --experimental-rerun=x.pickle": r"pickle",
    "sample run=nowhere": r"run: nowhere is neither",
    "sample run=latest": r"no run below outputs",
    "sample run=latest format=bmp": r"format: must be of animated_svg, gcode, gif, hpgl, midi, mp4, png, svg, txt, wav, webm",
    "sample run=latest n=0": r"n: must be a whole number from 1",
    "sample rum=latest": r"rum: .*did you mean run",
    "list stuff": r"list stuff: .*env",
}  # fmt: skip


@pytest.mark.parametrize("command", WRONG)
def test_wrong_input_is_one_sentence_and_writes_nothing(rlgen, command):
    import re

    code, out, err = rlgen(*command.split())
    assert code == 2, err
    assert re.search(WRONG[command], err), err
    assert "Traceback" not in out + err
    assert len(err.strip().splitlines()) == 1
    assert not written()


def test_a_training_then_samples(rlgen):
    assert rlgen("train", *small("agent=random"), "hydra.run.dir=here", "+reward/term=ink_cost")[0] == 0
    assert json.loads(Path("here/status.json").read_text())["status"] == "finished"
    for kind, name in (("png", "grid.png"), ("gif", "timelapse.gif"), ("svg", "grid.svg")):
        for out in ("one", "two"):
            assert rlgen("sample", "run=here", "n=9", "seed=3", f"format={kind}", f"out={out}/{kind}")[0] == 0
        one, two = (sorted(Path(out, kind).iterdir()) for out in ("one", "two"))
        assert [p.name for p in one] == [p.name for p in two]
        assert name in [p.name for p in one]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True)), "same seed, same bytes"
    assert rlgen("sample", "run=here", "n=9", "seed=4", "format=png", "out=other")[0] == 0
    assert Path("other/grid.png").read_bytes() != Path("one/png/grid.png").read_bytes()
    with Image.open("one/gif/timelapse.gif") as gif:
        gif.seek(1)  # there is a second frame
    with Image.open("one/png/000.png") as image:
        assert image.size == (12, 12)
    assert len(list(Path("one/svg").glob("0*.svg"))) == 9
    newest = sorted(Path("here/checkpoints").iterdir())[-1]
    assert rlgen("sample", f"run={newest}", "n=2", "format=png", "out=checkpoint")[0] == 0
    code, out, err = rlgen("eval", "run=here", "n=5", "updates=2")
    assert code == 0, err
    assert "ink_cost" in out
    assert json.loads(Path("here/eval/step_000000160_test_n5_seed0.json").read_text())["n"] == 5
    code, _, err = rlgen("train", *small("agent=random"), "hydra.run.dir=here")
    assert code == 2
    assert "holds a run already; resume=" in err


def test_svg_holds_the_strokes_in_order(rlgen):
    words = ["brush=pen_grid", "env.brush.grid=4"]
    assert rlgen("train", *small("agent=random", *words), "hydra.run.dir=here")[0] == 0
    assert rlgen("sample", "run=here", "n=4", "format=svg", "out=out")[0] == 0
    for file in Path("out").glob("0*.svg"):
        steps = [str(node.get("id")) for node in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}path")]
        assert steps == sorted(steps)
        assert len(steps) <= 6


def test_svg_shows_pixels_as_squares(rlgen):
    words = ["brush=pixel", "env.channels=3", "env.colours=4"]
    assert rlgen("train", *small("agent=random", *words), "hydra.run.dir=here")[0] == 0
    assert rlgen("sample", "run=here", "n=1", "out=out")[0] == 0
    drawn = Image.new("RGB", (12, 12))
    for node in ElementTree.parse("out/000.svg").iter("{http://www.w3.org/2000/svg}rect"):
        x, y, wide, high = (int(node.get(key, 0)) for key in ("x", "y", "width", "height"))
        drawn.paste(str(node.get("fill")), (x, y, x + wide, y + high))
    with Image.open("out/000.png") as png:
        assert list(drawn.getdata()) == list(png.convert("RGB").getdata())


def test_runs_go_to_folders_of_their_own(rlgen):
    for _ in range(2):
        assert rlgen("train", *small("agent=random"))[0] == 0
    runs = list(Path("outputs/pixel/random").iterdir())
    assert len(runs) == 2
    assert rlgen("sample", "run=latest", "n=1", "format=png")[0] == 0


@pytest.mark.slow
def test_a_sweep_runs_every_job(rlgen):
    code, _, err = rlgen("train", "-m", *small("agent=random"), "env.max_steps=6,7")
    assert code == 0, err
    assert len(list(Path("outputs/sweeps").rglob("status.json"))) == 2


def test_resume_takes_what_a_run_can_change(rlgen):
    assert rlgen("train", *small("agent=random"), "hydra.run.dir=here", "stop_at=80")[0] == 0
    for key, value in {"env.size": 20, "num_envs": 16, "seed": 2, "joint": True}.items():
        code, _, err = rlgen("train", "resume=here", f"{key}={value}")
        assert code == 2
        sentence = rf"rlgen: {key}: cannot change when a run goes on; only [a-z_, ]*total_steps[a-z_, ]* can\.\n"
        assert re.fullmatch(sentence, err)
    assert rlgen("train", "resume=here", "total_steps=200")[0] == 0
    assert json.loads(Path("here/status.json").read_text())["step"] == 200


def test_completion_knows_subcommands_groups_and_keys(rlgen, monkeypatch):
    for line, wanted in {
        "rlgen tr": "train", "rlgen train agent=": "agent=dqn", "rlgen train env.si": "env.size=",
        "rlgen sample spl": "split=", "rlgen list ": "experiment",
    }.items():  # fmt: skip
        monkeypatch.setenv("COMP_LINE", line)
        code, out, _ = rlgen("-sc", "query=bash")
        assert code == 0
        assert wanted in out.split(), line
    code, out, _ = rlgen("-sc", "install=bash")
    assert "complete" in out
    assert out.strip().endswith("rlgen")


def test_a_users_own_environment_agent_and_term_are_one_file_and_one_yaml(rlgen, tmp_path, monkeypatch):
    configs = tmp_path / "mine"
    (configs / "reward" / "term").mkdir(parents=True)
    (tmp_path / "my_terms.py").write_text(
        "class Corner:\n    needs = frozenset()\n    def __init__(self, *, x: int):\n        self.x = x\n"
        "    def __call__(self, view):\n        return view.sample[:, 0, 0, self.x]\n"
    )
    (configs / "reward" / "term" / "corner.yaml").write_text(
        "# @package reward.terms.corner\n_target_: my_terms.Corner\nweight: 1.0\nform: terminal\nx: 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["+reward/term=corner", "hydra.run.dir=here", "--config-dir", str(configs)]
    code, _, err = rlgen("train", *small("agent=random"), *words)
    assert code == 0, err
    assert "score/corner" in Path("here/metrics.jsonl").read_text()
    code, _, err = rlgen("sample", "run=here", "n=1", "format=png", "out=a")
    assert code == 2
    assert "trust=[my_terms]" in err
    assert rlgen("sample", "run=here", "n=1", "format=png", "out=a", "trust=[my_terms]")[0] == 0


def test_mnist_from_a_folder(rlgen, tmp_path):
    words = [word for word in small("agent=random", "reward=adversarial_classifier") if "per_class" not in word]
    code, _, err = rlgen(
        "train", *words, "data=mnist", f"data.root={write_idx(tmp_path / 'idx')}", "hydra.run.dir=here"
    )
    assert code == 0, err
