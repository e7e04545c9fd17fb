"""A GAN of seconds, built by hand, and the pictures that it learns from."""

from functools import partial
from typing import Any

import torch

from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.specs import Scored, View
from rlgen_cli.data.images import Images, Splits
from rlgen_cli.domains.latent.environment import LatentPictures
from rlgen_cli.domains.latent.steering import ContinuousStep, DiscreteStep, SetCoordinate, SetLatent
from rlgen_cli.generators.fused_reward import FusedReward
from rlgen_cli.generators.gan import GAN, GANOptimizer
from rlgen_cli.generators.joint import JointTraining
from rlgen_cli.generators.losses import AdversarialLoss, R1Penalty
from rlgen_cli.generators.networks import DiscriminatorNetwork, GeneratorNetwork

LATENT, SIZE = 6, 16


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(device: str = "cpu", count: int = 40) -> Images:
    """Noise with labels 0, 1, 2 in turn."""
    images = torch.randint(0, 256, (count, 1, SIZE, SIZE), generator=rng()).to(torch.uint8)
    return Images(images, torch.arange(count) % 3, ("a", "b", "c")).to(device)


class Brightness:
    """A reward: the mean of a picture, with or without a gradient."""

    def __init__(self, gradient: bool) -> None:
        self.gradient = gradient

    def __call__(self, before: View, after: View, done: torch.Tensor) -> Scored:
        sample = after.sample if self.gradient else after.sample.detach()
        values = sample.mean((1, 2, 3))
        return Scored(values, values, {}, {})


def make_gan(device: str = "cpu", reward: Any = None, **changes: Any) -> GAN:
    """`changes` win over what is small."""
    weight = changes.pop("reward_weight", 1.0 if reward is not None else 0.0)
    settings: dict[str, Any] = {
        "real": pictures(device),
        "rng": stream(1, "generator", device),
        "device": torch.device(device),
        "cache_key": "small",
        "network": partial(GeneratorNetwork, width=8),
        "discriminator": partial(DiscriminatorNetwork, width=4, hidden=0, spectral_norm=False),
        "conditional": False,
        "latent": LATENT,
        "loss": AdversarialLoss(kind="nonsaturating", penalty=R1Penalty(weight=0.1, interval=4)),
        "optimizer": GANOptimizer(learning_rate=Linear(2e-3, 2e-3, 1.0), generator_lr_ratio=1.0, betas=[0.0, 0.99]),
        "batch_size": 4,
        "updates": 2,
        "ema_decay": 0.998,
        "augment": [],
        "fused_reward": FusedReward(weight=weight, balance="gradient", noise_std=0.3),
        "joint_training": JointTraining(policy_latent_fraction=0.5, interval=1, buffer_size=20),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gan = GAN(**settings | changes)
    if reward is not None:
        gan.attach_reward(reward)
    return gan


def make_env(source: Any, steering: str = "discrete_step", **changes: Any) -> LatentPictures:
    """An environment that steers the source's generator; `changes` are of its own arguments or the steering's."""
    generator, device = source.generator, next(iter(source.generator.state_dict().values())).device
    kinds: dict[str, Any] = {
        "discrete_step": DiscreteStep,
        "continuous_step": ContinuousStep,
        "set_coordinate": SetCoordinate,
        "set_latent": SetLatent,
    }
    settings: dict[str, Any] = {"limit": 3.0}
    if steering != "set_latent":
        settings |= {"device": device, "space": "latent", "basis": "auto", "directions": 4}
        settings |= {"levels": 5} if steering == "set_coordinate" else {"stride": 0.7}
    settings |= {key: changes.pop(key) for key in list(changes) if key in settings}
    images = changes.pop("images") if "images" in changes else pictures(device)
    own: dict[str, Any] = {
        "size": SIZE,
        "channels": 1,
        "max_steps": 3,
        "start": "prior",
        "damage": None,
        "condition": "none",
        "time_encoding": "fraction",
    }
    return LatentPictures(
        data=Splits(images, images, images),
        split="train",
        device=device,
        generator=generator,
        steering=kinds[steering](generator=generator, **settings),
        **own | changes,
    )
