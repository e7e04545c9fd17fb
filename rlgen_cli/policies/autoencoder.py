"""A variational autoencoder of the data, frozen, as a policy's eyes."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlgen_cli.core.checkpoint import cached
from rlgen_cli.data.images import Images, digest
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.policies.encoders import Modulated, near
from rlgen_cli.core.layers import ConvNet
from rlgen_cli.core.fitting import teach
from rlgen_cli.core.types import Observation, ObservationSpec


class Autoencoder(nn.Module):
    """A VAE (Kingma and Welling 2014): pictures [N, C, H, W] in [0, 1] to codes [N, latent] and back to logits."""

    def __init__(self, picture: tuple[int, int, int], channels: int, width: int, latent: int) -> None:
        super().__init__()
        planes, high, wide = picture
        self.encoder = nn.Sequential(ConvNet(picture, channels, width, slope=0.1), nn.Linear(width, 2 * latent))
        self.decoder = nn.Sequential(
            nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, planes * high * wide), nn.Unflatten(1, picture),
        )  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        """The mean code."""
        return self.encoder(x).chunk(2, 1)[0]

    def loss(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The negative evidence bound, nats a picture."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=rng)
        logits = self.decoder(mean + (log_var / 2).exp() * noise)
        misfit = binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        return (misfit + kl).mean()


def _loss(net: Autoencoder, real: Images, rng: torch.Generator) -> Tensor:
    index = torch.randint(len(real.images), (128,), generator=rng)
    return net.loss(real.images[index].float() / 255, rng)


class Code(nn.Module):
    """The codes of canvas and target, the close view and the vector, through `layers` modulated layers.

    The autoencoder is trained on the training images by the first run that needs it (`steps` batches of 128), cached
    by the pictures and these arguments, and never changes afterwards. What the observation's image holds beside whole
    pictures (where they differ, where the pen is) is not encoded.
    """

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        real: Images | None,
        latent: int,
        channels: int,
        hidden: int,
        steps: int,
        width: int,
        layers: int,
    ) -> None:
        super().__init__()
        require(min(latent, channels, hidden, steps) >= 1, "latent, channels, hidden and steps must be at least 1.")
        if real is None:
            raise UserError("_target_: an autoencoder needs images, and this environment takes no data; use env=pixel.")
        planes, high, wide = real.images.shape[1:]
        self.planes, self.pictures, self.features = planes, observation.pictures, width
        self.autoencoder = Autoencoder((planes, high, wide), channels, hidden, latent)
        key = f"1 {digest(real.images)} {latent} {channels} {hidden} {steps}"
        net, data = self.autoencoder, real.to("cpu")
        loss = partial(_loss, net, data)
        cached("autoencoders", key, net, lambda: teach(net, "the policy's autoencoder", loss, steps, 1e-3))
        self.autoencoder.requires_grad_(False)
        inputs = latent * self.pictures + near(observation) + observation.vector
        self.layers = Modulated(inputs, observation.vector, width, layers)

    def forward(self, observation: Observation) -> Tensor:
        pictures = observation.image[:, : self.planes * self.pictures]
        codes = [self.autoencoder.encode(part) for part in pictures.chunk(self.pictures, 1)]
        seen = torch.cat([*codes, observation.patch.flatten(1), observation.vector], 1)
        return self.layers(seen, observation.vector)
