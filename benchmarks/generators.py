"""What the benchmarks of generators share."""

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.harness import Call
from benchmarks.parts import data_of
from rlgen_cli.core.seeding import stream
from rlgen_cli.core.stages import Helpers
from rlgen_cli.evaluation.media.raster import enlarge, grid, write_png
from rlgen_cli.generators.gan import GAN
from rlgen_cli.rewards.features import feature_net
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stages import fit_cached

# Samples of the prior: any latent is set in one step.
ANY_LATENT = ["env=latent_gan", "steering=set_latent", "env.max_steps=1"]
# A folder of a few hundred or thousand coloured pictures.
COLOURED = ["data=folder", "env.size=32", "env.channels=3", "env.generator.augment=[colour,translation,cutout]"]
SMALL_GAN = [
    "threads=1", "env.generator.updates=10", "env.generator.batch_size=8", "env.generator.network.width=8",
    "env.generator.discriminator.width=8",
]  # fmt: skip
SHOWN = 12  # samples of a label


def gan_of(session: Session) -> GAN:
    """The GAN that the session's environment steers."""
    assert isinstance(session.source, GAN)
    return session.source


@torch.no_grad()
def generated(session: Session, count: int) -> Tensor:
    """Pictures of fresh latents, and of labels in turn where the generator knows them, float [count, C, H, W]."""
    generator, rng = gan_of(session).generator, stream(0, "gan benchmark", session.device)
    label = torch.arange(count, device=session.device) % max(generator.classes, 1)
    z = torch.randn(count, generator.latent, generator=rng, device=session.device)
    parts = zip(z.split(500), label.split(500), strict=True)
    return torch.cat([generator.finished(generator(*part)) for part in parts])


def rotation_features(call: Call, session: Session) -> Callable[[Tensor], Tensor]:
    """Features [N, D] of pictures, by a network that learned to tell by how far a training picture was turned."""
    helpers = Helpers()
    net = feature_net(data_of(session).train, call.pick(600, 10), session.device, helpers)
    for stage in helpers.stages:
        fit_cached(stage, session)
    return lambda samples: torch.cat([net.features(part).detach() for part in samples.split(500)])


def write_labels(call: Call, name: str, samples: Tensor, label: Tensor) -> None:
    """A picture with a row of samples for each label."""
    of_each = [torch.nonzero(label == i)[:SHOWN, 0] for i in range(10)]
    write_png(call.results / f"{name}.png", enlarge(grid(samples[torch.cat(of_each)], columns=SHOWN), 400))


def slug(name: str) -> str:
    """A file's name."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())
