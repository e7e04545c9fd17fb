"""A generator from a user's file: what is read, what is refused, and that it is steered like one that was trained here."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.trust import Trust
from rlgen_cli.generators import TrainsGenerator
from rlgen_cli.generators.architectures import ALLOWED, DCGAN, MappedGenerator, MLPGenerator
from rlgen_cli.generators.from_file import GeneratorFile
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.pretrain import pretrain
from rlgen_cli.runs.sample import write_samples
from rlgen_cli.runs.trainer import resume, train
from rlgen_cli.testing import check_env
from tests.conftest import compose, session, small
from tests.resuming import resumes
from tests.small_gan import make_env, make_gan

ARGUMENTS: dict[str, dict[str, Any]] = {
    "MappedGenerator": {"sample": [1, 16, 16], "latent": 6, "classes": 0, "width": 8},
    "DCGAN": {"size": 16, "planes": 1, "latent": 6, "width": 4},
    "MLPGenerator": {"sample": [1, 16, 16], "latent": 6, "widths": [12, 20]},
}


def source(path: object, device: str = "cpu", **changes: Any) -> GeneratorFile:
    """The file as a source."""
    given: dict[str, Any] = {"trust": Trust(), "latent": None, "classes": 0, "range": [-1.0, 1.0]}
    return GeneratorFile(device=torch.device(device), path=str(path), **given | changes)


def steered(path: object, *words: str, agent: str = "ppo") -> Any:
    """A session that steers the file."""
    given = small("env=latent_gan", "generator=file", f"agent={agent}", "steering=continuous_step")
    return session(*given, f"env.generator.path={path}", "reward=sharpness", *words)


def saved(folder: Path, name: str = "MLPGenerator", **changes: object) -> Path:
    """Weights of seed 0 and their config, in a folder."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = ALLOWED[name](**ARGUMENTS[name])
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"class": name, "arguments": ARGUMENTS[name] | changes}))
    return folder


def plain() -> nn.Module:
    """A module whose pictures lie in [−1, 1]."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16)))


def files(tmp_path: Path) -> dict[str, Path]:
    """The same module as everything that can run code."""
    found = {name: tmp_path / f"net.{name}" for name in ("pt", "ts", "pt2")}
    torch.save(plain(), found["pt"])
    torch.jit.trace(plain(), torch.zeros(2, 6)).save(str(found["ts"]))
    batch = {0: torch.export.Dim("batch")}
    torch.export.save(torch.export.export(plain(), (torch.zeros(3, 6),), dynamic_shapes=(batch,)), found["pt2"])
    return found


def onnx_file(path: Path, labels: bool = False) -> Path:
    """2 z₀ in every pixel of 16 × 16 (plus the label, where there are labels): numbers that can be worked by hand."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    row = [2.0] + [0.0] * 5
    weight = helper.make_tensor("w", TensorProto.FLOAT, [6, 256], [value for value in row for _ in range(256)])
    shape = helper.make_tensor("s", TensorProto.INT64, [4], [-1, 1, 16, 16])
    nodes = [helper.make_node("MatMul", ["z", "w"], ["flat"]), helper.make_node("Reshape", ["flat", "s"], ["x"])]
    inputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 6])]
    if labels:
        inputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
        one = helper.make_tensor("one", TensorProto.INT64, [4], [-1, 1, 1, 1])
        nodes += [
            helper.make_node("Cast", ["label"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["float", "one"], ["four"]),
            helper.make_node("Add", ["x", "four"], ["y"]),
        ]
    name = "y" if labels else "x"
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 16, 16])
    inits = [weight, shape, *([one] if labels else [])]
    graph = helper.make_graph(nodes, "g", inputs, [out], inits)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_weights_of_each_allowed_class(name, tmp_path):
    made = source(saved(tmp_path / "own", name)).generator
    torch.manual_seed(0)
    net = ALLOWED[name](**ARGUMENTS[name]).eval()
    z = torch.randn(5, 6)
    assert torch.allclose(made(z), net(z).clamp(0, 1))
    assert made.shape == (1, 16, 16)
    assert made.differentiable
    rows = made.directions("learned")
    assert torch.allclose(rows @ rows.T, torch.eye(6), atol=1e-4)
    assert not isinstance(source(tmp_path / "own"), TrainsGenerator)


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_it_is_steered_on_the_cpu_and_on_the_meta_device(name, tmp_path):
    folder = saved(tmp_path / "own", name)
    check_env(make_env(source(folder), "continuous_step"), device=torch.device("cpu"))
    check_env(make_env(source(folder, "meta"), "discrete_step"), device=torch.device("meta"))


def test_its_state_opens_on_another_device(tmp_path):
    folder = saved(tmp_path / "own")
    here, there = source(folder).generator, source(folder, "meta").generator
    one, two = here.state_dict(), there.state_dict()
    assert set(one) == {"learned", "_extra_state"}
    assert one["learned"].shape == two["learned"].shape
    there.load_state_dict(one)
    assert there.directions("learned").device.type == "meta"


def test_names_of_earlier_versions_are_read(tmp_path):
    arguments = ARGUMENTS["MLPGenerator"]
    torch.manual_seed(0)
    net, folder = MLPGenerator(**arguments), tmp_path / "mlp"
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"class": "Perceptron", "arguments": arguments}))
    z = torch.randn(3, 6)
    assert torch.allclose(source(folder).generator(z), net(z))
    mapped, folder = MappedGenerator(**ARGUMENTS["MappedGenerator"]).eval(), tmp_path / "shaped"
    mapped.mapper.last.bias.data += 0.3
    folder.mkdir()
    old = {key.replace("mapper.", "shaper."): value for key, value in mapped.state_dict().items()}
    save_file(old, folder / "model.safetensors")
    config = {"class": "Shaped", "arguments": ARGUMENTS["MappedGenerator"] | {"spread": 0.3}}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.allclose(source(folder).generator(z), mapped(z))


def test_dcgan_has_the_names_and_sizes_of_the_pytorch_example():
    net = DCGAN(size=64, planes=3, latent=100, width=64)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items() if value.dim() == 4}
    assert shapes == {
        "main.0.weight": (100, 512, 4, 4), "main.3.weight": (512, 256, 4, 4), "main.6.weight": (256, 128, 4, 4),
        "main.9.weight": (128, 64, 4, 4), "main.12.weight": (64, 3, 4, 4),
    }  # fmt: skip
    assert net(torch.zeros(2, 100)).shape == (2, 3, 64, 64)


def test_mlp_by_hand():
    net = MLPGenerator(sample=[1, 1, 2], latent=1, widths=[1])
    for weight, value in zip(net.parameters(), ([[2.0]], [-1.0], [[1.0], [3.0]], [0.0, 0.5]), strict=True):
        weight.data = torch.tensor(value)
    middle = torch.tensor([1.0, -0.2 * 3])  # of z = 1 and z = −1
    wanted = torch.tanh(torch.stack([middle, 3 * middle + 0.5], 1))
    assert torch.allclose(net(torch.tensor([[1.0], [-1.0]])).flatten(1), (wanted + 1) / 2)


def test_what_pretrain_leaves_is_steered_as_if_it_had_been_trained_here(tmp_path):
    built: Any = assemble(compose(*small("env=latent_gan", "agent=random")))
    made = built.source.generator
    made.mapper.last.bias.data += 0.3  # as a fused reward would
    pretrain(built, tmp_path / "run")
    given = source(tmp_path / "run" / "generator").generator
    z, shift = torch.randn(3, 6), 0.1 * torch.randn(3, given.coordinates)
    assert torch.equal(given(z), made(z))
    assert torch.equal(given(z, None, shift), made(z, None, shift))


def test_sequences_are_not_exported(tmp_path):
    gan = make_gan()
    gan.makes = "sequences"
    gan.export(tmp_path / "generator")
    assert not (tmp_path / "generator").exists()


@pytest.mark.parametrize("agent", ["ppo", "policy_gradient", "dqn", "cem", "gradient", "random"])
def test_every_kind_of_agent_steers_it_and_resumes(agent, tmp_path):
    steering = "steering=discrete_step" if agent == "dqn" else "steering=continuous_step"
    given = small("env=latent_gan", "generator=file", f"agent={agent}", steering)
    words = [f"env.generator.path={saved(tmp_path / 'own')}", "reward=sharpness"]
    resumes([*given, *words], 160, tmp_path)
    write_samples(session(*given, *words), "test", 2, 0, ["png"], tmp_path / "out")
    assert "sharpness" in json.loads((tmp_path / "out" / "scores.json").read_text())["scores"]


def test_a_run_remembers_which_file_it_was(tmp_path):
    folder = saved(tmp_path / "own")
    train(steered(folder), tmp_path / "run")
    torch.manual_seed(1)
    save_file(MLPGenerator(**ARGUMENTS["MLPGenerator"]).state_dict(), folder / "model.safetensors")
    with pytest.raises(UserError, match="is not the generator that the run was trained with"):
        resume(tmp_path / "run", {"total_steps": 240})


@pytest.mark.parametrize("kind", ["pt", "ts", "pt2"])
def test_what_can_run_code_is_read_only_where_it_is_trusted(kind, tmp_path, caplog, monkeypatch):
    path = files(tmp_path)[kind]
    with monkeypatch.context() as patch:
        for name in ("torch.load", "torch.jit.load", "torch.export.load"):
            patch.setattr(name, lambda *_, **__: pytest.fail("read without leave"))
        with pytest.raises(UserError, match=r"can run any code.*trust=\["):
            source(path)
    with pytest.raises(UserError, match="does not say how long z is"):
        source(path, trust=Trust([str(path)]))
    built = steered(path, f"trust=[{path}]", "env.generator.latent=6")
    assert "can run any code" in caplog.text
    z = torch.randn(4, 6)
    assert torch.allclose(built.source.generator(z), (plain()(z) + 1) / 2, atol=1e-6)
    train(built, tmp_path / "run")
    with pytest.raises(UserError, match="can run any code"):  # a saved config cannot vouch for its file
        resume(tmp_path / "run", {"total_steps": 240})
    assert resume(tmp_path / "run", {"total_steps": 240, "trust": [str(path)]}) == "finished"


def test_onnx_by_hand(tmp_path):
    pytest.importorskip("onnxruntime")
    built = steered(onnx_file(tmp_path / "net.onnx"))
    made = built.source.generator
    z = torch.zeros(3, 6)
    z[:, 0] = torch.tensor([-1.0, 0.25, 1.0])
    assert torch.allclose(made(z)[:, 0, 3, 5], torch.tensor([0.0, 0.75, 1.0]))  # (2 z₀ + 1) / 2 in [0, 1]
    assert made.latent == 6
    assert train(built, tmp_path / "run") == "finished"


def test_onnx_with_labels(tmp_path):
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "net.onnx", labels=True)
    built = steered(path, "env.generator.classes=10", "env.condition=label", "env.generator.range=[0,20]")
    made = built.source.generator(torch.zeros(2, 6), torch.tensor([4, 9]))
    assert torch.allclose(made[:, 0, 0, 0], torch.tensor([0.2, 0.45]))


def test_onnx_gives_no_gradient(tmp_path):
    pytest.importorskip("onnxruntime")
    path = onnx_file(tmp_path / "net.onnx")
    with pytest.raises(UserError, match=r"differentiable|cannot act"):
        steered(path, agent="gradient")
    assert steered(path, agent="cem").source.generator.differentiable is False


def test_onnx_without_its_package(tmp_path, monkeypatch):
    path = onnx_file(tmp_path / "net.onnx")
    imported = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'rlgen\[onnx\]'"):
        source(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward=realism"], "comes without a discriminator; use reward="),
        (["joint=true"], "does not learn along; use generator=r1"),
        (["env.size=28"], "makes 16 × 16 pictures with 1 channels, and 28 × 28 .* use env.size=16"),
        (["env.steering.basis=principal"], "not known here; use auto or axes or random or learned"),
        (["env.steering.space=parameters"], "the parameters of this generator are not known"),
        (["env.generator.range=[1,0]"], "env.generator.range: must be two numbers"),
        (["env.generator.latent=0"], "env.generator.latent: must be at least 1"),
    ],
)
def test_what_does_not_fit_says_what_would(words, message, tmp_path):
    with pytest.raises(UserError, match=message):
        steered(saved(tmp_path / "own"), *words)


def test_files_that_cannot_be_read(tmp_path):
    folder = saved(tmp_path / "own")
    with pytest.raises(UserError, match="there is no nowhere"):
        source("nowhere")
    with pytest.raises(UserError, match="do not make a MLPGenerator"):
        source(saved(tmp_path / "wider", widths=[12, 21]))
    with pytest.raises(UserError, match="do not make a MLPGenerator"):
        source(saved(tmp_path / "word", latent="six"))
    (folder / "config.json").write_text(json.dumps({"class": "os.system", "arguments": {}}))
    with pytest.raises(UserError, match=r"class os\.system is not allowed; valid are"):
        source(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="must be JSON with class and arguments"):
        source(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"there is no .*config\.json"):
        source(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="must hold one"):
        source(folder)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"no ONNX graph that can run|needs onnxruntime"):
        source(bad)
    state = tmp_path / "state.pt"
    torch.save(plain().state_dict(), state)
    with pytest.raises(UserError, match="holds a OrderedDict, not a module"):
        source(state, trust=Trust([str(state)]))
    flat = tmp_path / "flat.pt"
    torch.save(nn.Linear(6, 9), flat)
    with pytest.raises(UserError, match="makes no pictures"):
        source(flat, trust=Trust([str(flat)]), latent=6)


def test_it_is_not_trained(tmp_path):
    given = small("env=latent_gan", "generator=file", "agent=random")
    words = [*given, f"env.generator.path={saved(tmp_path / 'own')}", "reward=sharpness"]
    with pytest.raises(UserError, match="is not trained; use generator=r1"):
        pretrain(assemble(compose(*words)), tmp_path / "run")


def test_a_mapped_generator_takes_labels():
    net: Any = MappedGenerator(**ARGUMENTS["MappedGenerator"] | {"classes": 3}).eval()
    net.generator.norms[0].bias.weight.data += torch.randn(3, 8)
    z = torch.zeros(2, 6)
    made = net(z, torch.tensor([0, 2]))
    assert not torch.equal(made[0], made[1])
