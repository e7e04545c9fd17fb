"""Run folders that were written to do harm, each a change to an innocent run. Whoever opens one of them must end in one
sentence, with nothing run, nothing read that is secret, and nothing written outside.

`HARM` is what each of them would do if it could: create `harm` in the working folder (by a shell, a planted module or
pickle, or a link), or tell the value of `SECRET`.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

HARM = "harm"  # the file that must not be there afterwards
SECRET = "RLGEN_TEST_SECRET"  # the environment variable whose value must not be shown
SHELL = f"touch {HARM}"
Change = Callable[[Path], None]


class Bomb:
    """Creates `harm` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (SHELL,)


def plant_module() -> Path:
    """A module in the working folder that does harm when it is imported, and has a reward and a generator."""
    path = Path("planted.py")
    path.write_text(f"import os\nos.system({SHELL!r})\ndef score(x):\n    return x.mean((1, 2, 3))\n")
    return path.resolve()


def plant_pickle(name: str = "planted.pt") -> Path:
    path = Path(name)
    path.write_bytes(pickle.dumps(Bomb()))
    return path.resolve()


def node_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((run / "config.yaml").read_text())
    return found


def with_value(key: str, value: Any) -> Change:
    """The config with one of its values replaced; a function gives the value when the folder is made."""

    def change(run: Path) -> None:
        node = node_of(run)
        *parents, last = key.split(".")
        place = node
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value() if callable(value) else value
        (run / "config.yaml").write_text(yaml.safe_dump(node))

    return change


def with_text(text: str | bytes | Callable[[Path], str]) -> Change:
    """The config replaced by a text."""

    def change(run: Path) -> None:
        content = text(run / "config.yaml") if callable(text) else text
        (run / "config.yaml").write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def with_more(text: str) -> Change:
    """The config with more text behind it."""
    return with_text(lambda path: path.read_text() + text + "\n")


def with_link(name: str, target: str) -> Change:
    """A file or folder of the run replaced by a link to what lies outside."""

    def change(run: Path) -> None:
        place = run / name
        if place.is_dir():
            place.rename(run.parent / f"moved_{place.name}")
        else:
            place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(Path(target).absolute())

    return change


def with_pipe(name: str) -> Change:
    """A file of the run replaced by a pipe, whose reader waits for ever."""

    def change(run: Path) -> None:
        place = newest(run) / name.removeprefix("CHECKPOINT/") if name.startswith("CHECKPOINT/") else run / name
        place.unlink(missing_ok=True)
        os.mkfifo(place)

    return change


def newest(run: Path) -> Path:
    return sorted((run / "checkpoints").glob("step_*"))[-1]


def with_part(name: str, content: bytes | Callable[[bytes], bytes]) -> Change:
    """A file of every checkpoint replaced, and the manifest's digest with it."""

    def change(run: Path) -> None:
        for folder in (run / "checkpoints").glob("step_*"):
            file, manifest = folder / name, json.loads((folder / "manifest.json").read_text())
            file.write_bytes(content(file.read_bytes()) if callable(content) else content)
            manifest["sha256"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
            write_manifest(folder, manifest)

    return change


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """A manifest whose own digest is right."""
    digest = hashlib.sha256(json.dumps(manifest["sha256"], sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest | {"digest": digest}))


def with_manifest(content: str | Callable[[dict[str, Any]], Any]) -> Change:
    """The manifest of every checkpoint replaced."""

    def change(run: Path) -> None:
        for folder in (run / "checkpoints").glob("step_*"):
            path = folder / "manifest.json"
            path.write_text(content if isinstance(content, str) else json.dumps(content(json.loads(path.read_text()))))

    return change


def with_tensor(wrong: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """The policy's tensors changed in every checkpoint."""

    def rewritten(content: bytes) -> bytes:
        from safetensors.torch import load, save

        return save({name: wrong(tensor).contiguous() for name, tensor in load(content).items()})

    return with_part("policy/policy.safetensors", rewritten)


def with_generator(class_name: Any, arguments: Any) -> Change:
    """A generator whose config names what it should not."""

    def change(run: Path) -> None:
        folder = Path("planted_generator")
        folder.mkdir(exist_ok=True)
        save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"class": class_name, "arguments": arguments}))
        generator(str(folder))(run)

    return change


def generator(path: str | Callable[[], str], **more: Any) -> Change:
    """The environment steers a generator from a file."""
    return with_value(
        "env",
        lambda: {
            "_target_": "rlgen_cli.domains.latent.environment.LatentPictures", "size": 16, "channels": 1, "max_steps": 3,
            "condition": "none", "start": "prior", "damage": None,
            "steering": {"_target_": "rlgen_cli.domains.latent.steering.SetLatent", "limit": 1.0},
            "generator": {
                "_target_": "rlgen_cli.generators.from_file.GeneratorFile", "path": path() if callable(path) else path,
                "latent": 4, "classes": 0, "range": [-1.0, 1.0], **more,
            },
        },
    )  # fmt: skip


def term(**node: Any) -> Change:
    """One more term of the reward."""
    return with_value(
        "reward.terms.more",
        lambda: {"weight": 1.0, "form": "terminal"} | {k: v() if callable(v) else v for k, v in node.items()},
    )


OWN = "rlgen_cli"
FILE = f"{OWN}.generators.from_file"
FUNCTION = f"{OWN}.rewards.function.Function"
IDX: dict[str, Any] = {
    "_target_": f"{OWN}.data.mnist.IdxImages", "name": "mnist", "root": None, "url": "https://example.invalid",
    "md5": {}, "classes": ["0"], "threshold": None,
}  # fmt: skip
BOMB = "{_target_: os.system, command: '" + SHELL + "'}"
# By name: what is done to an innocent run's folder.
CONFIGS: dict[str, Change] = {
    # Strings that become nodes once OmegaConf resolves them.
    "resolver decode": with_value("agent", f'${{oc.decode:"{BOMB}"}}'),
    "resolver create": with_value("agent", "${oc.create:'" + BOMB.replace("'", "") + "'}"),
    "resolver in a term": with_value("reward.terms.more", f'${{oc.decode:"{BOMB}"}}'),
    "resolver in a list": with_value("reward.terms.target.norm", ["${oc.create:x}"]),
    "resolver as a key": with_value("reward.terms", {"${oc.env:HOME}": {}}),
    "resolver of a resolver": with_value("agent", '${oc.decode:${oc.decode:"x"}}'),
    "resolver of the environment": with_value("reward.terms.target.norm", f"${{oc.env:{SECRET}}}"),
    "resolver in a name": with_value("env.condition", f"${{oc.env:{SECRET}}}"),
    "resolver of a node": with_value("env", "${agent}"),
    "resolver, escaped": with_value("env.condition", "\\${oc.env:HOME}"),
    # Classes and functions of others.
    "os.system": with_value("agent", {"_target_": "os.system", "command": SHELL}),
    "subprocess": with_value("agent", {"_target_": "subprocess.Popen", "args": SHELL, "shell": True}),
    "eval": term(_target_="builtins.eval", source=f"__import__('os').system({SHELL!r})"),
    "exec of a deep node": with_value("agent.network.body", {"_target_": "builtins.exec", "source": SHELL}),
    "in a list": with_value("env.list", [{"_target_": "os.system", "command": SHELL}]),
    "partial": with_value("agent", {"_target_": "functools.partial", "func": "os.system"}),
    "runpy": term(_target_="runpy.run_path", path_name=lambda: str(plant_module())),
    "a planted module": with_value("env._target_", lambda: f"{plant_module().stem}.Env"),
    "hydra's own": term(_target_="hydra.utils.instantiate", config=BOMB),
    "torch.load": term(_target_="torch.load", f=lambda: str(plant_pickle()), weights_only=False),
    "rmtree": term(_target_="shutil.rmtree", path="."),
    # Functions of this package that are no components.
    "own loader of code": term(_target_=f"{FILE}.from_code", file=lambda: str(plant_pickle()), kind="pickle", device="cpu"),
    "own import": term(_target_=f"{OWN}.rewards.function._module", name=lambda: str(plant_module())),
    "own find": term(_target_=f"{OWN}.config.instantiate.find", target="os.system", path="x"),
    "own component": term(_target_=f"{OWN}.config.instantiate.component", node={"_target_": "os.system"}, path="x"),
    "own call": term(_target_=f"{OWN}.config.instantiate.call", target="os.system", values={}, path="", runtime={}),
    "own builder": with_value("agent._target_", f"{OWN}.runs.assemble.build_agent"),
    "own command line": term(_target_=f"{OWN}.cli.main.dispatch", arguments=["new", "env", HARM]),
    "own writer": term(_target_=f"{OWN}.core.files.write_atomic", path=HARM, content="x"),
    "own deleter": term(_target_=f"{OWN}.core.checkpoint.prune", run=".", keep=0, best=None),
    "a module of this package's imports": term(_target_=f"{OWN}.runs.log.subprocess.run", args=SHELL, shell=True),
    "own trust": with_value("env.trust", {"_target_": f"{OWN}.core.trust.Trust", "iterable": ["os"]}),
    # Components that lead to code or to the network.
    "function in a file": term(_target_=FUNCTION, path=lambda: f"{plant_module()}:score"),
    "function of a module": term(_target_=FUNCTION, path="os:system"),
    "function, path a list": term(_target_=FUNCTION, path=["os:system"]),
    "function below a controller": with_value("agent.more", {"_target_": FUNCTION, "path": "os:system"}),
    "pickle": generator(lambda: str(plant_pickle())),
    "pickle that the file trusts": generator(lambda: str(plant_pickle()), trust=[str(Path("planted.pt").absolute())]),
    "pickle that the run trusts": lambda run: (
        generator(lambda: str(plant_pickle()))(run), with_value("trust", lambda: [str(plant_pickle())])(run)
    )[-1],
    "pickle by another name": generator(lambda: str(plant_pickle("planted.bin"))),
    "pickle as a program": generator(lambda: str(plant_pickle("planted.pt2"))),
    "pickle as weights": generator(lambda: str(plant_pickle("planted.safetensors"))),
    "pickle as a term": term(
        _target_=f"{FILE}.GeneratorFile", path=lambda: str(plant_pickle()), trust=["os"], device="cpu", latent=4,
        classes=0, range=[-1.0, 1.0],
    ),
    "a generator's class": with_generator("os.system", {"command": SHELL}),
    "a generator's class, nested": with_generator({"_target_": "os.system"}, {"command": SHELL}),
    "a generator's width": with_generator("DCGAN", {"size": 16, "planes": 1, "latent": 6, "width": 10**9}),
    "a download from elsewhere": with_value("data", IDX | {"url": "http://127.0.0.1:9"}),
    "a download of a local file": with_value("data", IDX | {"url": "file:///etc"}),
    "a download to elsewhere": with_value("data", IDX | {"name": "../../../planted"}),
    "a model of the hub": term(_target_=f"{OWN}.rewards.clip.Clip", model="someone/something", prompt="x"),
    # Trust and other arguments that are not the file's to give.
    "trust of everything": lambda run: (
        with_value("trust", ["os", "builtins", "subprocess"])(run), with_value("agent", {"_target_": "os.system"})(run)
    )[-1],
    "a device for a component": with_value("env.device", "cpu"),
    "a split for the environment": with_value("env.split", "../.."),
    "another key": with_value("hydra", {"callbacks": {"x": {"_target_": "os.system"}}}),
    # What is no plain config.
    "python tag": with_more(f"more: !!python/object/apply:os.system ['{SHELL}']"),
    "python name": with_more("more: !!python/name:os.system"),
    "python module": with_more("more: !!python/module:os"),
    "binary tag": with_more("more: !!binary aGFybQ=="),
    "set": with_more("more: !!set {a, b}"),
    "date": with_more("more: 2020-01-01"),
    "references that grow": with_more(
        "a0: &a0 [x, x]\n" + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
    ),
    "reference to itself": with_more("more: &a [*a]"),
    "nested without end": with_more("more: " + "[" * 50_000),
    "nested mappings": with_more("more: " + "{a: " * 2_000 + "1" + "}" * 2_000),
    "a huge file": with_more("more: " + "x" * 1_000_000),
    "a huge number": with_more("more: " + "9" * 10_000),
    "a number to base 60": with_more("more: 1" + ":59" * 6_000),
    "too many values": with_more("more: [" + "1," * 20_000 + "]"),
    "bytes": with_text(bytes(range(256))),
    "another encoding": with_text("seed: ü".encode("utf-16")),
    "empty": with_text(""),
    "a list": with_text("[1, 2]"),
    "a word": with_text("os.system"),
    "two documents": with_text(lambda path: path.read_text() + "\n---\nseed: 1\n"),
    "a target that is a number": with_value("agent._target_", 5),
    "a target that is a list": with_value("agent._target_", ["os.system"]),
    "a target that is empty": with_value("agent._target_", ""),
    "terminal's escapes": with_value("agent._target_", "\x1b]0;harm\x07os.system\n\x1b[2J"),
    # Values that no run has.
    "an environment for an agent": lambda run: with_value("agent", node_of(run)["env"])(run),
    "an unfinished environment": with_value("env._partial_", True),
    "a text for the reward": with_value("reward", "os.system"),
    "no terms": with_value("reward.terms", [1]),
    "a seed that is a list": with_value("seed", [1]),
    "a million threads": with_value("threads", 1_000_000),
}  # fmt: skip
DEEP = b'{"policy": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
FOLDERS: dict[str, Change] = {
    "config is a link": with_link("config.yaml", "/etc/passwd"),
    "config is a device": with_link("config.yaml", "/dev/zero"),
    "config is a pipe": with_pipe("config.yaml"),
    "log is a link": with_link("train.log", HARM),
    "metrics are a link": with_link("metrics.jsonl", HARM),
    "status is a link": with_link("status.json", HARM),
    "samples are a link": with_link("samples", "."),
    "checkpoints are a link": with_link("checkpoints", "."),
    "a link in a deep folder": with_link("samples/final/x", HARM),
    "a checkpoint is a link to nowhere": with_link("checkpoints/step_999999999", "nowhere"),
    "log is a pipe": with_pipe("train.log"),
    "weights are a pipe": with_pipe("CHECKPOINT/policy/policy.safetensors"),
    "manifest is a pipe": with_pipe("CHECKPOINT/manifest.json"),
    "manifest leads outside": with_manifest(lambda m: m | {"sha256": m["sha256"] | {"policy/../../../../secret": "0"}}),
    "manifest with an absolute path": with_manifest(lambda m: m | {"sha256": {"/etc/passwd": "0"}}),
    "manifest is a list": with_manifest("[]"),
    "manifest without digests": with_manifest('{"format": 2}'),
    "manifest of numbers": with_manifest('{"format": 2, "sha256": {"policy/state.json": 1}}'),
    "manifest nested without end": with_manifest("[" * 100_000),
    "manifest of another version": with_manifest('{"format": 99, "sha256": {}}'),
    "state nested without end": with_part("policy/state.json", DEEP),
    "state is a list": with_part("policy/state.json", b"[]"),
    "state names no tensor": with_part("policy/state.json", b'{"policy": {"__tensor__": "gone"}}'),
    "state names a list": with_part("policy/state.json", b'{"policy": {"__tensor__": ["x"]}}'),
    "state with strange numbers": with_part("policy/state.json", b'{"policy": {"__numbered__": {"x": 1}}}'),
    "weights are a pickle": with_part("policy/policy.safetensors", pickle.dumps(Bomb())),
    "weights with a lying header": with_part("policy/policy.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
    "weights of an absurd shape": with_part(
        "policy/policy.safetensors",
        len(head := json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()).to_bytes(
            8, "little"
        )
        + head
        + b"0000",
    ),
    "weights of another shape": with_tensor(lambda tensor: tensor.flatten()[:1]),
    "weights of another kind": with_tensor(lambda tensor: torch.zeros(3, dtype=torch.uint8)),
}


def npz(path: Path) -> Path:
    """A Note RNN's file whose arrays are pickled objects."""
    bomb = np.array([Bomb()], dtype=object)
    np.savez(path, lstm_kernel=bomb, lstm_bias=bomb)
    return path
