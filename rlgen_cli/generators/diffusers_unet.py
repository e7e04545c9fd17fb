"""The U-Net of the diffusers library (the extra `diffusers`) as a network of a diffusion model, and its files.

Its passes go through its parts one by one, so that they also give the middle's features and take a label by its place:
a label that the network does not know yet begins with weights of zero, and a row of zeros is no label.

When to use it: where a model is to go to diffusers after its training (`generator/network=unet2d`), or comes from it
(`generator=diffusers`).

What to expect: at 28 × 28 a pass takes several times as long as our own network's, which sees blocks of pixels.
"""

import json
import math
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.extras import imported
from rlgen_cli.core.protocols import NoisePath
from rlgen_cli.generators.paths import Cosine, Flow, Timesteps

TIMESTEPS = 1000  # of a scheduler of ours; the last of them, 999, is the time 1
GROUPS = 8  # of channels that are normalised together, where there are so many
MOST_LEVELS, MOST_LAYERS, MOST_CHANNELS = 6, 16, 4096
LABEL = "class_embedding.weight"  # [labels, embedding], in a file


class DiffusersUNet(nn.Module):
    """A `UNet2DModel` that is called as other networks of a diffusion model are.

    Args:
        unet: without a class embedding, since the labels' weights are here.
        labels: that there is a place for, 0 for none.
        last: the timestep that the time 1 is; the time 0 is timestep 0.

    Attributes:
        features: numbers that the middle has for each picture (`forward`).
    """

    kind = "convolutions"

    def __init__(self, *, unet: Any, labels: int, last: int) -> None:
        super().__init__()
        self.unet, self.last = unet, last
        self.features = int(unet.config.block_out_channels[-1])
        width = unet.time_embedding.linear_2.out_features
        self.label = nn.Parameter(torch.zeros(labels, width)) if labels else None

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the network predicts [N, C, H, W] of noisy pictures x at times t [N], label [N, labels] or None, and
        the middle's features [N, features]."""
        unet = self.unet
        embedded = unet.time_embedding(unet.time_proj(self.last * t))
        if self.label is not None and label is not None:
            embedded = embedded + label @ self.label
        h = unet.conv_in(x)
        skipped: tuple[Tensor, ...] = (h,)
        for block in unet.down_blocks:
            h, more = block(h, embedded)
            skipped += more
        h = unet.mid_block(h, embedded)
        features = h.mean((2, 3))
        for block in unet.up_blocks:
            count = len(block.resnets)
            h, skipped = block(h, skipped[-count:], embedded), skipped[:-count]
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(h))), features

    def check(self, path: NoisePath) -> None:
        """Refuse a path that diffusers has no scheduler for, before the training.

        Raises:
            UserError: for such a path.
        """
        scheduler_of(path)

    def files(self, path: NoisePath, conditional: bool) -> dict[str, bytes]:
        """What a pipeline of diffusers is loaded from, by name; `conditional` models have a class embedding."""
        weights = {name: value.cpu().contiguous() for name, value in self.unet.state_dict().items()}
        config = json.loads(self.unet.to_json_string())
        if conditional and self.label is not None:
            weights[LABEL] = self.label.detach().cpu()
            config["num_class_embeds"] = len(self.label)
        scheduler = scheduler_of(path)
        index = {
            "_class_name": "DDPMPipeline",
            "_diffusers_version": config["_diffusers_version"],
            "scheduler": ["diffusers", scheduler["_class_name"]],
            "unet": ["diffusers", "UNet2DModel"],
        }
        written = {
            "model_index.json": index,
            "unet/config.json": config,
            "scheduler/scheduler_config.json": scheduler,
        }
        made = {name: json.dumps(content, indent=2).encode() for name, content in written.items()}
        return made | {"unet/diffusion_pytorch_model.safetensors": save_tensors(weights, {"format": "pt"})}


def trained_unet(
    *, sample: tuple[int, int, int], hints: int, classes: int, words: Tensor | None, channels: list[int], layers: int
) -> DiffusersUNet:
    """A network to be trained.

    Args:
        sample: C, H, W of the pictures. classes: labels that there are, 0 for none. hints: 0, and words: None, since
            the library's model has no place for them.
        channels: at each level, from the picture's own resolution to the coarsest; each level halves the sides.
        layers: blocks of two convolutions at each level.

    Raises:
        UserError: without diffusers, for a value out of range, and for pictures that cannot be halved so often.
    """
    by_place = "label_encoding: a UNet2DModel knows labels by their place; use index, or generator/network=unet."
    require(words is None, by_place)
    require(hints == 0, "damage: a UNet2DModel sees the noisy picture alone; use generator/network=unet.")
    planes, high, wide = sample
    halved = 2 ** (len(channels) - 1)
    require(1 <= len(channels) <= MOST_LEVELS, f"channels: must be 1 to {MOST_LEVELS} numbers, got {channels}.")
    fine = all(1 <= count <= MOST_CHANNELS for count in channels)
    require(fine, f"channels: must each be from 1 to {MOST_CHANNELS}, got {channels}.")
    even = all(count % 2 == 0 for count in channels[:1])
    require(even, f"channels: the first must be even, for sines and cosines of the time, got {channels}.")
    require(1 <= layers <= MOST_LAYERS, f"layers: must be from 1 to {MOST_LAYERS}, got {layers}.")
    whole = high % halved == 0 and wide % halved == 0
    require(whole, f"channels: {len(channels)} levels need sides that are multiples of {halved}, got {high} × {wide}.")
    unet = imported("diffusers", "diffusers", "_target_: needs diffusers:").UNet2DModel(
        sample_size=[high, wide],
        in_channels=planes,
        out_channels=planes,
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=["DownBlock2D"] * len(channels),
        up_block_types=["UpBlock2D"] * len(channels),
        attention_head_dim=None,  # one head, in the middle
        norm_num_groups=math.gcd(GROUPS, *channels),
    )
    return DiffusersUNet(unet=unet, labels=classes, last=TIMESTEPS - 1)


def scheduler_of(path: NoisePath) -> dict[str, Any]:
    """The config of the scheduler that goes a path of ours, whose timestep k is the time k / 999.

    Raises:
        UserError: for a path that there is none for.
    """
    if isinstance(path, Flow):
        # Its timesteps are its number of timesteps times σ.
        return {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": TIMESTEPS - 1, "shift": 1.0}
    if isinstance(path, Cosine):
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": TIMESTEPS,
            "trained_betas": betas(path, TIMESTEPS),
            "prediction_type": "epsilon" if path.noise else "v_prediction",
            "clip_sample": False,
        }
    if isinstance(path, Timesteps):
        count, clip = path.table.shape[1], path.clip_range
        return {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": count,
            "trained_betas": betas(path, count),
            "prediction_type": path.prediction,
            "clip_sample": clip is not None,
            "clip_sample_range": 1.0 if clip is None else clip,
        }
    raise UserError(f"path: diffusers has no scheduler for {type(path).__name__}; use Flow or Cosine.")


def betas(path: NoisePath, timesteps: int) -> list[float]:
    """1 − ᾱ_k / ᾱ_(k − 1) of so many timesteps; the first is half a step from the sample, since a scheduler divides by
    its noise."""
    t = torch.arange(timesteps, dtype=torch.float64) / (timesteps - 1)
    t[0] = t[1] / 2
    kept = path.alpha(t).double().square()
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    found: list[float] = (1 - kept / before).tolist()
    return found
