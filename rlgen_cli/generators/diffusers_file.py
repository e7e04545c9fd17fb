"""A diffusion model of the user's own, from a folder that the diffusers library has written (the extra `diffusers`): a
policy changes it, and it is not trained.

Only JSON and safetensors are read, from that folder alone, and the classes are those that are named here.

Deviations from diffusers, numbered:

1. Times are continuous: timestep k of T is the time k / (T − 1), and the time 0 is the sample itself, which no timestep
   is (paths.Timesteps).
2. Estimates are cut off where the scheduler has `clip_sample`, and where it does not say; `thresholding` is not done.
3. How a scheduler spaces its steps is left to `env.sampler`; so a flow's `shift` has no effect.

When to use it: where a small model of pixels is there already, with labels or without, of 8 to 64 pixels.

What to expect: its own samples at the start, as with `generator=flow`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.extras import imported
from rlgen_cli.core.files import read_bytes, read_json
from rlgen_cli.core.protocols import NoisePath
from rlgen_cli.data.images import Images
from rlgen_cli.generators.diffusers_unet import LABEL, DiffusersUNet
from rlgen_cli.generators.diffusion import DiffusionModel
from rlgen_cli.generators.from_file import LARGEST_ARGUMENT, LARGEST_FILE, MOST_LAYERS, check_shapes, tensors
from rlgen_cli.generators.paths import Flow, Timesteps

FLOW = "FlowMatchEulerDiscreteScheduler"
TABLES = ("DDPMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler")
NAMES_OF_A_TABLE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
)  # fmt: skip
PREDICTIONS = ("epsilon", "sample", "v_prediction")
MOST_TIMESTEPS = 100_000
WEIGHTS = "diffusion_pytorch_model.safetensors"
# What a UNet2DModel must have for our way through it, where it has more than one.
PLAIN: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "class_embed_type": (None,),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
}
# Names of an attention's weights as older versions wrote them.
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class DiffusersFile:
    """A source (generators.GeneratorSource) that reads what `pipeline.save_pretrained(FOLDER)` leaves: a UNet2DModel
    and a scheduler.

    Args:
        real: the pictures, whose size and labels the model must fit.
        device: where everything lies.
        path: of the folder.
        ode_steps: see DiffusionModel.

    Raises:
        UserError: without diffusers, for a folder that holds no such model, and for one of other pictures.
    """

    def __init__(self, *, real: Images, device: torch.device, path: str, ode_steps: int) -> None:
        require(isinstance(real, Images), "_target_: a diffusion model makes pictures; use generator=melody here.")
        require(1 <= ode_steps <= 1000, f"ode_steps: must be from 1 to 1000, got {ode_steps}.")
        folder = Path(path)
        require(folder.is_dir(), f"path: there is no folder {path}.")
        scheduler_name = named_in(folder)
        scheduler = read_json(existing(part(folder, "scheduler") / "scheduler_config.json"), "path")
        described = read_json(existing(part(folder, "unet") / "config.json"), "path")
        file = weights_in(part(folder, "unet"))
        content = read_bytes(file, LARGEST_FILE, "path")
        weights = {renamed(name): value for name, value in tensors(file, content).items()}
        shape, labels = tuple(real.images.shape[1:]), len(real.classes)
        check_fits(described, shape, labels, path)
        noise, last = path_of(scheduler_name, scheduler, device, path)
        net = built(described, weights, shape, labels, last, path).to(device)
        model = DiffusionModel(
            network=net, path=noise, shape=(shape[0], shape[1], shape[2]), hints=0, labels=labels,
            classes=labels if described.get("num_class_embeds") else 0, ode_steps=ode_steps,
        )  # fmt: skip
        said = json.dumps([described, scheduler_name, scheduler], sort_keys=True).encode()
        self.generator = ModelOfFiles(model=model, folder=path, digest=hashlib.sha256(said + content).hexdigest())


class ModelOfFiles:
    """A diffusion model (`core.protocols.Denoises`, and a `Generator`) whose state is the digest of its files, which a
    run does not copy.

    Args:
        model: as it was read. folder: of the files, for messages. digest: SHA-256 of them, hexadecimal.
    """

    differentiable = True
    direction_names: tuple[str, ...] = ()
    coordinates = 0

    def __init__(self, *, model: DiffusionModel, folder: str, digest: str) -> None:
        self.model, self.folder, self.digest = model, folder, digest
        self.path, self.shape = model.path, model.shape
        self.labels, self.classes, self.hints, self.latent = model.labels, model.classes, model.hints, model.latent

    def __call__(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        return self.model(z, label, shift)

    def denoising_network(self) -> Any:
        return self.model.network

    def estimate(self, x: Tensor, t: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        return self.model.estimate(x, t, label, hint)

    def solve(self, x: Tensor, times: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        return self.model.solve(x, times, label, hint)

    def finished(self, raw: Tensor) -> Tensor:
        return self.model.finished(raw)

    def directions(self, name: str) -> Tensor:
        return self.model.directions(name)

    def state_dict(self) -> dict[str, Any]:
        """Which files it was."""
        return {"sha256": self.digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Refuse the state of another model."""
        same = state["sha256"] == self.digest
        require(same, f"env.generator.path: {self.folder} is not the model that the run was trained with.")


def named_in(folder: Path) -> str:
    """The scheduler's class, of a pipeline that is a UNet2DModel and a scheduler and nothing else."""
    index = read_json(existing(folder / "model_index.json"), "path")
    parts = {name: value for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    more = sorted(set(parts) - {"unet", "scheduler"})
    only = "only a model of pixels is taken, a UNet2DModel and its scheduler"
    require(not more, f"path: {folder} has {', '.join(more)[:80]} besides, and {only}.")
    names = {name: str((parts.get(name) or [None])[-1])[:80] for name in ("unet", "scheduler")}
    require(names["unet"] == "UNet2DModel", f"path: {folder} has a {names['unet']} as unet, and {only}.")
    return names["scheduler"]


def part(folder: Path, name: str) -> Path:
    """Where a part's files lie: in a folder of its name, or, as older pipelines have them, beside the index."""
    inside = folder / name
    return inside if inside.is_dir() else folder


def existing(file: Path) -> Path:
    """The file itself.

    Raises:
        UserError: where there is none.
    """
    require(file.exists(), f"path: there is no {file}; give a folder that save_pretrained of diffusers has written.")
    return file


def weights_in(folder: Path) -> Path:
    """The file of the weights.

    Raises:
        UserError: where there is none, or only a pickle.
    """
    pickled = folder / WEIGHTS.replace(".safetensors", ".bin")
    if pickled.exists() and not (folder / WEIGHTS).exists():
        raise UserError(
            f"path: {pickled} is a pickle, which can run any code when it is read; save the pipeline with "
            "safe_serialization=True, which writes safetensors."
        )
    return existing(folder / WEIGHTS)


def check_fits(described: dict[str, Any], shape: tuple[int, ...], labels: int, path: str) -> None:
    """Refuse a model of other pictures than the data's [C, H, W], or of other labels."""
    planes, high, wide = shape
    size = described.get("sample_size")
    fits = size in (None, high, [high, wide])
    side = size[0] if isinstance(size, list) and size else size
    require(fits, f"path: {path} makes pictures of sample_size={size}; set env.size={side}.")
    known = [described.get("in_channels", 3), described.get("out_channels", 3)]
    require(
        known[0] == known[1], f"path: {path} takes {known[0]} channels and gives {known[1]}, which must be as many."
    )
    require(known[0] == planes, f"path: {path} makes pictures of {known[0]} channels; set env.channels={known[0]}.")
    count = described.get("num_class_embeds")
    named = f"path: {path} knows {count} labels, and the data have {labels}; choose data with as many"
    require(count in (None, labels), f"{named}.")


def path_of(name: str, config: dict[str, Any], device: torch.device, path: str) -> tuple[NoisePath, int]:
    """The way from samples to noise that a scheduler goes, and the timestep at its end.

    Raises:
        UserError: for a scheduler or a prediction that is not known here, or values that make no table.
    """
    steps, where = config.get("num_train_timesteps", 1000), f"path: {path} has a scheduler"
    whole = isinstance(steps, int) and 2 <= steps <= MOST_TIMESTEPS
    require(whole, f"{where} of num_train_timesteps={steps}, which must be from 2 to {MOST_TIMESTEPS}.")
    if name == FLOW:
        require(not config.get("invert_sigmas"), f"{where} with invert_sigmas, whose times are not known here.")
        return Flow(), steps
    require(name in TABLES, f"{where} {name}; known are {', '.join((*TABLES, FLOW))}.")
    prediction = config.get("prediction_type", "epsilon")
    known = ", ".join(PREDICTIONS)
    require(prediction in PREDICTIONS, f"{where} of prediction_type={prediction}; known are {known}.")
    kept = alphas_cumprod(config, path)
    falling = len(kept) == steps and bool((kept.diff() < 0).all()) and float(kept[0]) <= 1 and float(kept[-1]) >= 0
    require(falling, f"{where} whose alphas_cumprod do not fall from 1 to 0 in {steps} timesteps.")
    last = prediction != "epsilon" or float(kept[-1]) > 0
    require(last, f"{where} that ends in pure noise, of which prediction_type=epsilon tells nothing.")
    clip_range = config.get("clip_sample_range", 1.0) if config.get("clip_sample", True) else None
    cut = clip_range is None or (isinstance(clip_range, int | float) and clip_range > 0)
    require(cut, f"{where} of clip_sample_range={clip_range}, which must be above 0.")
    return Timesteps(alphas_cumprod=kept, prediction=prediction, clip_range=clip_range, device=device), steps - 1


def alphas_cumprod(config: dict[str, Any], path: str) -> Tensor:
    """α² of the timesteps, float64 [T], of the betas that diffusers makes of a scheduler's config."""
    library = imported("diffusers", "diffusers", "path: needs diffusers:")
    try:
        made = library.DDPMScheduler(**{name: config[name] for name in NAMES_OF_A_TABLE if name in config})
        found: Tensor = (1 - made.betas.double()).cumprod(0)
    except Exception as error:  # a foreign class on foreign values: no list of what it may raise is complete
        raise UserError(f"path: {path} has a scheduler that cannot be made ({reason_of(error)}).") from None
    return found


def built(
    described: dict[str, Any], weights: dict[str, Tensor], shape: tuple[int, ...], labels: int, last: int, path: str
) -> DiffusersUNet:
    """The network with its weights. It is made on the meta device first, which takes no memory, so that its size is the
    weights' before it takes any.

    Raises:
        UserError: for a config and weights that make none.
    """
    library = imported("diffusers", "diffusers", "path: needs diffusers:")
    arguments = {name: value for name, value in described.items() if not name.startswith("_")}
    check_arguments(arguments, path)
    known = arguments.pop("num_class_embeds", None)  # the labels' weights are ours
    try:
        with torch.device("meta"):
            planned = DiffusersUNet(unet=library.UNet2DModel(**arguments), labels=labels, last=last)
            wanted = planned.unet.state_dict()
            if known and planned.label is not None:
                wanted[LABEL] = planned.label
            check_shapes(wanted, weights)
            planned(torch.zeros(1, *shape), torch.zeros(1), None)
        net = DiffusersUNet(unet=library.UNet2DModel(**arguments), labels=labels, last=last)
        if known and net.label is not None:
            net.label.data.copy_(weights.pop(LABEL))
        net.unet.load_state_dict(weights)
    except Exception as error:  # as above
        raise UserError(f"path: {path} holds no UNet2DModel that can be made ({reason_of(error)}).") from None
    return net


def check_arguments(arguments: dict[str, Any], path: str) -> None:
    """Refuse a UNet2DModel that has what our way through it does not know, or numbers that nobody means."""
    for name, value in arguments.items():
        items = value if isinstance(value, list) else [value]
        most = MOST_LAYERS if name == "layers_per_block" else LARGEST_ARGUMENT
        fits = len(items) <= MOST_LAYERS and all(plain(item, most) for item in items)
        require(fits, f"path: {path} has a UNet2DModel whose {name} is out of range.")
        known = PLAIN.get(name)
        fine = known is None or all(item in known for item in items)
        require(
            fine,
            f"path: {path} has a UNet2DModel with {name}={value}, and known is {' or '.join(map(str, known or ()))}.",
        )


def plain(value: Any, most: int) -> bool:
    """Whether a value is text, a truth value, null, or a number from −1 to `most`."""
    return value is None or isinstance(value, str) or (isinstance(value, int | float) and -1 <= value <= most)


def renamed(name: str) -> str:
    """A weight's name as it is today."""
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name
