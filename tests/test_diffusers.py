"""Diffusion models in the form of the diffusers library: what is read is what it computes, what is written it can read,
and what cannot be read is said."""

import json
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rlgen_cli.config.compose import composed
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Denoises
from rlgen_cli.data.images import Images
from rlgen_cli.domains.diffusion.samplers import DDIM, coefficients
from rlgen_cli.generators import TrainsGenerator
from rlgen_cli.generators.diffusers_file import DiffusersFile
from rlgen_cli.generators.diffusers_unet import trained_unet
from rlgen_cli.generators.paths import Cosine, Flow, Timesteps
from rlgen_cli.runs.assemble import assemble
from rlgen_cli.runs.open import open_run
from tests.conftest import compose, session, small, write_diffusers
from tests.resuming import resumes
from tests.test_diffusion import learned, make_training, rng

diffusers = pytest.importorskip("diffusers", reason="needs the extra diffusers")

CPU = torch.device("cpu")
SCHEDULERS: dict[str, dict[str, Any]] = {
    "ddpm": {},
    "ddpm of noise, cut off": {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True},
    "ddpm of samples": {"prediction_type": "sample", "num_train_timesteps": 50},
    "ddim of velocity": {"kind": "DDIMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "ddim, not cut off": {"kind": "DDIMScheduler", "clip_sample": False, "beta_schedule": "scaled_linear"},
}


def pictures(size: int = 8, labels: int = 2, channels: int = 1) -> Images:
    images = torch.zeros(4, channels, size, size, dtype=torch.uint8)
    return Images(images, torch.arange(4) % max(labels, 1), tuple("abcdefg"[:labels]))


def read(folder: Path, real: Images | None = None) -> DiffusersFile:
    return DiffusersFile(real=pictures() if real is None else real, device=CPU, path=str(folder), ode_steps=4)


def noisy(n: int = 3, size: int = 8) -> torch.Tensor:
    return torch.randn(n, 1, size, size, generator=rng())


def one_hot(n: int) -> torch.Tensor:
    return torch.eye(2)[torch.arange(n) % 2]


@pytest.mark.parametrize("case", SCHEDULERS)
@torch.no_grad()
def test_the_estimate_is_what_the_scheduler_says(case, tmp_path):
    folder = write_diffusers(tmp_path / "model", size=8, **SCHEDULERS[case])
    model = read(folder).generator
    assert isinstance(model, Denoises)
    assert (model.classes, model.labels) == (0, 2)
    net = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    scheduler = diffusers.DDIMScheduler.from_config(
        diffusers.DDPMScheduler.from_pretrained(folder / "scheduler").config
    )
    last, x = scheduler.config.num_train_timesteps - 1, noisy()
    scheduler.set_timesteps(last + 1)
    for k in (1, last // 3, last - 1):
        expected = scheduler.step(net(x, k).sample, k, x).pred_original_sample
        made = model.estimate(x, torch.full((3,), k / last), one_hot(3))
        assert torch.allclose(made, expected, atol=1e-5, rtol=1e-4)
        kept = scheduler.alphas_cumprod[k]
        t = torch.tensor(k / last)
        assert model.path.alpha(t).item() == pytest.approx(kept.sqrt().item(), rel=1e-3)
        assert model.path.sigma(t).item() == pytest.approx((1 - kept).sqrt().item(), rel=1e-3)


@torch.no_grad()
def test_a_flow_is_straight(tmp_path):
    folder = write_diffusers(tmp_path / "model", size=8, kind="FlowMatchEulerDiscreteScheduler", shift=3.0)
    model, x = read(folder).generator, noisy()
    net = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    made = model.estimate(x, torch.full((3,), 0.25), None)
    assert torch.allclose(made, x - 0.25 * net(x, torch.tensor(250.0)).sample, atol=1e-5)


@torch.no_grad()
def test_a_conditional_model_takes_our_labels(tmp_path):
    folder = write_diffusers(tmp_path / "model", size=8, labels=2)
    model, x = read(folder).generator, noisy()
    net = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    made = model.denoising_network()(x, torch.full((3,), 0.5), one_hot(3))[0]
    assert torch.allclose(made, net(x, torch.tensor(499.5), torch.arange(3) % 2).sample, atol=1e-5)
    samples = model(torch.randn(3, 64, generator=rng()), torch.arange(3) % 2)
    assert samples.shape == (3, 1, 8, 8)


def test_a_table_of_timesteps_by_hand():
    kept = torch.tensor([0.9, 0.64, 0.36], dtype=torch.float64)
    path = Timesteps(alphas_cumprod=kept, prediction="epsilon", clip_range=1.0, device=CPU)
    t = torch.tensor([0.0, 0.5, 0.75, 1.0])
    # Halfway between (.8, .6) and (.6, .8) is (.7, .7), and of length 1 that is (√½, √½).
    assert torch.allclose(path.alpha(t), torch.tensor([1.0, 0.8, 0.5**0.5, 0.6]))
    assert torch.allclose(path.sigma(t), torch.tensor([0.0, 0.6, 0.5**0.5, 0.8]))
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    estimate = path.estimate(x, torch.ones(2), torch.tensor(0.5))  # (x − .6) / .8, cut off at 1
    assert torch.allclose(estimate, torch.tensor([0.5, 1.0]))
    assert torch.allclose(torch.autograd.grad(estimate.sum(), x)[0], torch.full((2,), 1.25))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_what_a_table_predicts_tells_the_sample(prediction):
    kept = torch.linspace(0.99, 0.01, 20, dtype=torch.float64)
    path = Timesteps(alphas_cumprod=kept, prediction=prediction, clip_range=None, device=CPU)
    x0, noise = noisy(5), torch.randn(5, 1, 8, 8, generator=rng(1))
    t = torch.linspace(0.01, 1, 5).view(-1, 1, 1, 1)
    x = path.alpha(t) * x0 + path.sigma(t) * noise
    assert torch.allclose(path.estimate(x, path.target(x0, noise, t), t), x0, atol=1e-4)
    steps = coefficients(DDIM(eta=1.0), path, torch.linspace(1, 0.1, 9), 1)
    assert all(bool(part.isfinite().all()) for part in steps)
    assert float(steps.std.min()) > 0


PATHS = {"flow": Flow(), "velocity": Cosine(prediction="velocity"), "noise": Cosine(prediction="noise")}
TINY = partial(trained_unet, channels=[8, 16], layers=1)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("name", PATHS)
def test_what_was_trained_here_comes_back(name, conditional, tmp_path):
    training = learned(make_training(5, path=PATHS[name], network=TINY, conditional=conditional))
    training.export(tmp_path / "model")
    model = read(tmp_path / "model", training.real).generator
    assert (model.labels, model.classes) == (2, 2 if conditional else 0)
    x, t, label = noisy(4), torch.tensor([0.02, 0.3, 0.77, 0.95]), one_hot(4)
    expected = training.generator.estimate(x, t, label)
    assert torch.allclose(model.estimate(x, t, label), expected, atol=1e-5)


@pytest.mark.parametrize("name", PATHS)
def test_a_pipeline_samples_from_what_was_trained_here(name, tmp_path):
    training = learned(make_training(5, path=PATHS[name], network=TINY))
    training.export(tmp_path / "model")
    kind = diffusers.DDPMPipeline if name == "flow" else diffusers.DDIMPipeline
    pipe = kind.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    assert pipe(batch_size=2, num_inference_steps=3, output_type="np").images.shape == (2, 8, 8, 1)
    x, k = noisy(), 400
    predicted = pipe.unet(x, k).sample.detach()
    if name == "flow":
        assert isinstance(pipe.scheduler, diffusers.FlowMatchEulerDiscreteScheduler)
        estimate = x - k / 999 * predicted
    else:
        estimate = pipe.scheduler.step(predicted, k, x).pred_original_sample
    expected = training.generator.estimate(x, torch.full((3,), k / 999), None)
    assert torch.allclose(estimate, expected, atol=1e-4)


def test_the_steps_of_a_pipeline_are_those_of_our_solver(tmp_path):
    """From the same noise, at the timesteps that the pipeline takes: DPM-Solver++ of second order, as the library has it
    and as we do."""
    for name in ("flow", "velocity"):
        training = learned(make_training(5, path=PATHS[name], network=TINY))
        training.export(tmp_path / name)
        pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / name)
        settings: dict[str, Any] = {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"}
        if name == "flow":
            settings |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "num_train_timesteps": 999}
        else:
            settings |= dict(pipe.scheduler.config)
        scheduler = diffusers.DPMSolverMultistepScheduler.from_config(settings)
        scheduler.set_timesteps(6)
        x = start = noisy()
        for k in scheduler.timesteps:
            x = scheduler.step(pipe.unet(x, k).sample.detach(), k, x).prev_sample
        times = torch.tensor([*(scheduler.timesteps / 999), 0.0])
        expected = training.generator.solve(start, times.float(), None)
        assert torch.allclose(x, expected, atol=2e-3), (name, (x - expected).abs().max(), scheduler.sigmas, times)


@pytest.mark.parametrize(("agent", "rank"), [("policy_gradient", "null"), ("reward_weighted", "2")])
def test_agents_change_it_and_go_on_bit_for_bit(agent, rank, tmp_path):
    write_diffusers(Path("model"), size=12)
    words = small("env=diffusion", f"agent={agent}", "generator=diffusers", "network=denoiser", "reward=[symmetry]")
    resumes([*words, "env.generator.path=model", f"agent.network.denoiser.rank={rank}"], 80, tmp_path)
    assert not (tmp_path / "parts" / "stages" / "generator").exists()


def test_a_policy_begins_as_the_model(tmp_path):
    write_diffusers(Path("model"), size=12)
    words = small("env=diffusion", "agent=policy_gradient", "generator=diffusers", "network=denoiser")
    run = session(*words, "reward=classifier", "env.generator.path=model")
    assert not isinstance(run.source, TrainsGenerator)
    env: Any = run.envs["train"]
    policy: Any = run.actor
    state = env.step(env.reset(4, rng()), env.spec.action.sample(4, rng(1)))
    start = torch.zeros(1, 4, dtype=torch.bool)
    out = policy.forward(env.observe(state), None, None, start)
    assert out.policy.mode().abs().max() < 1e-3
    changes = dict(zip(policy.net.denoiser.names, policy.net.denoiser.changes, strict=True))
    assert changes["label"].change.shape[0] == len(env.spec.class_names)  # it can learn what was asked for
    kept = run.policy_state()["generator"]
    assert set(kept) == {"sha256"}
    with pytest.raises(
        UserError, match=r"env\.generator\.path: model is not the model that the run was trained with\."
    ):
        run.load_policy({**run.policy_state(), "generator": {"sha256": "0"}})


@pytest.mark.parametrize(("agent", "rank"), [("policy_gradient", "null"), ("reward_weighted", "2")])
def test_what_a_policy_has_learned_goes_back_to_the_library(agent, rank, rlgen):
    write_diffusers(Path("model"), size=12, num_train_timesteps=50)
    words = small("env=diffusion", f"agent={agent}", "generator=diffusers", "network=denoiser", "reward=classifier")
    words += ["env.generator.path=model", f"agent.network.denoiser.rank={rank}"]
    assert rlgen("train", *words, "hydra.run.dir=run")[0] == 0
    assert rlgen("export", "run=run", "to=mine", "n=2")[0] == 0
    run = open_run(composed("sample", ["run=run"])).session
    env, policy = run.envs["test"], cast(Any, run.actor)
    state = env.step(env.reset(4, rng()), env.spec.action.sample(4, rng(1)))
    seen = env.observe(state)
    with torch.no_grad():
        estimate = policy.net.denoiser._estimate(seen)[1]
    back = DiffusersFile(
        real=run.data.train,  # type: ignore[union-attr]
        device=CPU,
        path="mine/tuned",
        ode_steps=2,
    ).generator
    found = back.estimate(state.noisy, seen["time"].squeeze(1), seen["label"])
    assert torch.allclose(found, estimate, atol=1e-4)
    assert not torch.allclose(seen["estimate"], estimate, atol=1e-4)


def test_pretraining_and_export_leave_a_pipeline(tmp_path, rlgen):
    words = small("env=diffusion", "generator/network=unet2d", "agent=random", "reward=[symmetry]")
    kept = [word for word in words if not word.startswith(("agent", "env=", "total_steps", "reward"))]
    code, _, error = rlgen("pretrain", "env=diffusion", *kept, "hydra.run.dir=made")
    assert code == 0, error
    assert rlgen("train", *words, "hydra.run.dir=run")[0] == 0
    assert rlgen("export", "run=run", "to=mine", "n=2")[0] == 0
    for folder in (Path("made/generator"), Path("mine/generator")):
        pipe = diffusers.DDPMPipeline.from_pretrained(folder)
        assert pipe.unet.config.sample_size == [12, 12]
    more = ["env.size=12", "data.per_class=4", "env.generator.path=mine/generator", "device=cpu"]
    built = assemble(compose("env=diffusion", "agent=random", "generator=diffusers", *more))
    assert isinstance(built.envs["train"].generator, Denoises)  # type: ignore[attr-defined]


def edit(folder: Path, file: str, **changes: Any) -> None:
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | changes))


def pickled(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))


def inverted(folder: Path) -> None:
    edit(folder, INDEX, scheduler=["", "FlowMatchEulerDiscreteScheduler"])
    edit(folder, SCHEDULER, invert_sigmas=True)


def cut_short(folder: Path) -> None:
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])


INDEX, NET, SCHEDULER = "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"
CHANGED = {
    "no index": (lambda f: (f / INDEX).unlink(), r"path: there is no \S+model_index\.json; give a folder that save_pre"),
    "no config": (lambda f: (f / NET).unlink(), r"path: there is no \S+unet/config\.json; give"),
    "no scheduler": (lambda f: (f / SCHEDULER).unlink(), r"path: there is no \S+scheduler_config\.json; give"),
    "a pickle": (pickled, r"path: \S+\.bin is a pickle, which can run any code when it is read; save .* safe_serialization=T"),
    "half a file": (cut_short, r"path: \S+\.safetensors cannot be read \("),
    "no JSON": (lambda f: (f / NET).write_text("{"), r"path: \S+config\.json is damaged \(it is no JSON\)"),
    "another network": (
        lambda f: edit(f, INDEX, unet=["diffusers", "UNet2DConditionModel"]),
        r"path: \S+ has a UNet2DConditionModel as unet, and only a model of pixels is taken, a UNet2DModel and its",
    ),
    "latents": (lambda f: edit(f, INDEX, vqvae=["diffusers", "VQModel"]), r"path: \S+ has vqvae besides, and only a"),
    "another scheduler": (
        lambda f: edit(f, INDEX, scheduler=["diffusers", "ScoreSdeVeScheduler"]),
        r"path: \S+ has a scheduler ScoreSdeVeScheduler; known are DDPMScheduler, DDIMScheduler, DPMSolverM",
    ),
    "another prediction": (
        lambda f: edit(f, SCHEDULER, prediction_type="flow_prediction"),
        r"path: \S+ has a scheduler of prediction_type=flow_prediction; known are epsilon, sample, v_prediction\.",
    ),
    "pure noise": (lambda f: edit(f, SCHEDULER, rescale_betas_zero_snr=True), r"path: .* ends in pure noise, of which"),
    "endless timesteps": (lambda f: edit(f, SCHEDULER, num_train_timesteps=10**12), r"path: .* must be from 2 to 100000"),
    "odd betas": (lambda f: edit(f, SCHEDULER, trained_betas=[0.1, -3.0]), r"path: .* alphas_cumprod do not fall from 1"),
    "a schedule": (lambda f: edit(f, SCHEDULER, beta_schedule="steep"), r"path: .* has a scheduler that cannot be made \("),
    "no cut": (lambda f: edit(f, SCHEDULER, clip_sample_range=-1), r"path: .* clip_sample_range=-1, which must be above 0"),
    "sigmas": (inverted, r"path: .* with invert_sigmas, whose times are not known here\."),
    "another size": (lambda f: edit(f, NET, sample_size=[16, 16]), r"path: .* of sample_size=\[16, 16\]; set env\.size=16\."),
    "colours": (lambda f: edit(f, NET, in_channels=3, out_channels=3), r"path: .* of 3 channels; set env\.channels=3\."),
    "a variance": (lambda f: edit(f, NET, out_channels=2), r"path: .* takes 1 channels and gives 2, which must be as"),
    "labels": (lambda f: edit(f, NET, num_class_embeds=5), r"path: .* knows 5 labels, and the data have 2; choose data"),
    "a wider network": (lambda f: edit(f, NET, block_out_channels=[8, 24]), r"path: .* holds no UNet2DModel that can be m"),
    "an unknown key": (lambda f: edit(f, NET, colour="red"), r"path: .* holds no UNet2DModel .*colour"),
    "layers without end": (lambda f: edit(f, NET, layers_per_block=10**9), r"path: .* whose layers_per_block is out of"),
    "a nested value": (lambda f: edit(f, NET, act_fn={"a": 1}), r"path: .* whose act_fn is out of range"),
    "Fourier": (lambda f: edit(f, NET, time_embedding_type="fourier"), r"path: .* time_embedding_type=fourier, and known"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGED)
def test_what_cannot_be_read_is_said(case, tmp_path):
    folder = write_diffusers(tmp_path / "model", size=8)
    change, said = CHANGED[case]
    change(folder)
    with pytest.raises(UserError, match=f"^{said}") as refused:
        read(folder)
    assert len(str(refused.value).splitlines()) == 1


WRONG = {
    "generator=diffusers env.generator.path=none": r"env\.generator\.path: there is no folder none\.",
    "generator=diffusers env.generator.path=model": r"env\.generator\.path: model makes pictures of sample_size=12; set env\.size=12",
    "generator=diffusers env.generator.path=model env.size=12 joint=true": r"joint: this generator does not learn along",
    "generator=r1 env=latent_gan generator/network=unet2d": r"generator/network: is for generators that are diffusion mod",
    "generator/network=unet2d env.generator.network.channels=[8,8,8,8]": r"network\.channels: 4 levels need .* of 8, got 28",
    "generator/network=unet2d env.generator.network.channels=[]": r"env\.generator\.network\.channels: must be 1 to 6 num",
    "generator/network=unet2d env.generator.network.channels=[7,8]": r"network\.channels: the first must be even",
    "generator/network=unet2d env.generator.network.channels=[8,0]": r"network\.channels: must each be from 1 to 4096",
    "generator/network=unet2d env.generator.conditional=true env.generator.label_encoding=words": r"a UNet2DModel knows",
    "generator/network=unet2d env.generator.network.layers=0": r"env\.generator\.network\.layers: must be from 1 to 16",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_is_said(words):
    write_diffusers(Path("model"), size=12)
    env = [] if "env=" in words else ["env=diffusion"]
    with pytest.raises(UserError, match=WRONG[words]):
        assemble(compose(*env, *words.split(), "data.per_class=2", "device=cpu"))


def test_a_path_without_a_scheduler_is_refused_before_the_training():
    class Unknown:
        """A path of the user's own."""

    with pytest.raises(UserError, match=r"path: diffusers has no scheduler for Unknown; use Flow or Cosine\."):
        make_training(1, path=Unknown(), network=TINY)


def test_it_is_not_pretrained(rlgen):
    write_diffusers(Path("model"), size=12)
    words = ["generator=diffusers", "env.generator.path=model", "env.size=12", "data.per_class=2"]
    code, _, error = rlgen("pretrain", "env=diffusion", *words)
    assert code == 2
    assert "generator: one from a file is not trained; use generator=flow." in error


def test_without_the_library_one_line_says_what_to_install(tmp_path, monkeypatch):
    folder = write_diffusers(tmp_path / "model", size=8)

    def missing(package: str) -> None:
        raise ImportError(package)

    monkeypatch.setattr("rlgen_cli.core.extras.importlib.import_module", missing)
    with pytest.raises(UserError, match=r"^path: needs diffusers: pip install 'rlgen\[diffusers\]'\.$"):
        read(folder)
    with pytest.raises(UserError, match=r"^_target_: needs diffusers: pip install 'rlgen\[diffusers\]'\.$"):
        trained_unet(sample=(1, 8, 8), hints=0, classes=0, words=None, channels=[8], layers=1)


@torch.no_grad()
def test_weights_by_older_names_beside_the_index(tmp_path):
    """As pipelines of 2022 lie on the hub: all in one folder, an attention's weights by other names."""
    from safetensors.torch import load_file, save_file

    folder = write_diffusers(tmp_path / "model", size=8)
    expected = read(folder).generator.estimate(noisy(), torch.full((3,), 0.5), None)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for new, name in old.items():
        weights = {key.replace(new, name): value for key, value in weights.items()}
    assert any(".query." in key for key in weights)
    save_file(weights, file)
    for inner in ("unet", "scheduler"):
        for part in (folder / inner).iterdir():
            part.rename(folder / part.name)
        (folder / inner).rmdir()
    assert torch.equal(read(folder).generator.estimate(noisy(), torch.full((3,), 0.5), None), expected)
