"""A variational autoencoder of the data, frozen, whose codes a policy sees."""

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.fitting import draw, draw_index
from rlgen_cli.core.layers import ConvNet, FiLMLayers
from rlgen_cli.core.pixels import as_unit
from rlgen_cli.core.specs import Observation, ObservationSpec, of_kind
from rlgen_cli.core.stages import Helpers
from rlgen_cli.data.images import Images, digest
from rlgen_cli.policies.encoders import INPUTS, VECTOR, Inputs, prepared


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
        """The negative evidence lower bound, nats a picture."""
        mean, log_var = self.encoder(x).chunk(2, 1)
        noise = draw(mean.shape, x, rng, normal=True)
        logits = self.decoder(mean + (log_var / 2).exp() * noise)
        reconstruction = binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
        kl = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(1)
        return (reconstruction + kl).mean()


def batch_loss(real: Images, net: nn.Module, rng: torch.Generator) -> Tensor:
    """The loss of 128 training pictures."""
    index = draw_index(len(real.images), 128, real.images, rng)
    return cast(Autoencoder, net).loss(real.images[index].float() / 255, rng)


class AutoencoderCode(nn.Module):
    """The codes of the observation's whole pictures (the canvas, the target), and its patches and vectors, through
    `layers` modulated layers of `width`.

    The autoencoder is fitted on the training images by a stage of the run (`updates` batches of 128), cached by the
    pictures and these arguments, and never changes afterwards. Images that are no whole pictures (where two differ,
    where the pen is) are not encoded.

    Raises:
        UserError: in an environment without images.
    """

    kind = "mlp"

    def __init__(
        self,
        *,
        observation: ObservationSpec,
        real: Images | None,
        helpers: Helpers,
        latent: int,
        channels: int,
        hidden: int,
        updates: int,
        width: int,
        layers: int,
    ) -> None:
        super().__init__()
        for name, value in {"latent": latent, "channels": channels, "hidden": hidden, "updates": updates}.items():
            require(value >= 1, f"{name}: must be at least 1, got {value}.")
        if real is None or not isinstance(real, Images):
            raise UserError("_target_: an autoencoder needs images, and this environment takes none; use env=pixel.")
        planes, high, wide = real.images.shape[1:]
        shape = (planes, high, wide)
        self.pictures = tuple(name for name, part in of_kind(observation, "image").items() if part.shape == shape)
        require(bool(self.pictures), f"_target_: the observation shows no picture of {shape}; use body=mlp.")
        key = f"2 {digest(real.images)} {latent} {channels} {hidden} {updates}"
        self.autoencoder = cast(
            Autoencoder,
            helpers.fitted(
                "autoencoder", key, lambda: Autoencoder(shape, channels, hidden, latent).to(real.images.device),
                lambda net: partial(batch_loss, real, net), updates, 1e-3,
            ),
        )  # fmt: skip
        self.inputs, self.features = Inputs(observation), width
        size = latent * len(self.pictures) + self.inputs.patch_size + self.inputs.vector_size
        self.layers = FiLMLayers(size, self.inputs.vector_size, width, layers)

    def prepare(self, observation: Observation) -> Observation:
        codes = [self.autoencoder.encode(as_unit(observation[name])) for name in self.pictures]
        return self.inputs.prepared(observation, [*codes, *self.inputs.numbers(observation)])

    def forward(self, observation: Observation) -> Tensor:
        observation = prepared(self, observation)
        return self.layers(observation[INPUTS], observation[VECTOR])
