"""How small helpers (a classifier, an autoencoder, a judge) are fitted, once, before a run begins."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.specs import Metrics


class SupervisedFit:
    """Adam on a loss that draws its own batches; a `core.protocols.Trainable`.

    The result depends on the arguments alone: first weights and batches come from a generator of its own, on the CPU
    whatever the device, so that a fit that was cut off goes on elsewhere.

    Args:
        net: what is fitted; frozen but during an update, so that nothing that uses it trains it, before or after.
        loss: the loss of one batch, a scalar, drawn by the generator that it is given.
        learning_rate: Adam's.
    """

    def __init__(self, net: nn.Module, loss: Callable[[torch.Generator], Tensor], learning_rate: float) -> None:
        self.net, self.loss = net, loss
        self.rng = torch.Generator().manual_seed(0)
        uniform_weights(net, self.rng)
        self.optimizer = PlainAdam(net.parameters(), learning_rate)
        self.freeze()

    def update(self, progress: float) -> Metrics:
        """One step of Adam."""
        self.net.requires_grad_(True)
        loss = self.loss(self.rng)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.freeze()
        return {"loss": loss.detach()}

    def freeze(self) -> None:
        """The weights change no more."""
        self.net.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.get_state().numpy().tobytes(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.set_state(torch.frombuffer(bytearray(state["rng"]), dtype=torch.uint8))


@torch.no_grad()
def uniform_weights(net: nn.Module, rng: torch.Generator) -> None:
    """Uniform first weights within ± 1 / √(inputs), from `rng` on the CPU; biases are 0."""
    for parameter in net.parameters():
        bound = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
        parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=rng))


def draw(shape: tuple[int, ...] | torch.Size, like: Tensor, rng: torch.Generator, normal: bool = False) -> Tensor:
    """Uniform (or standard normal) numbers from a generator on the CPU, on the device of `like`."""
    source = torch.randn if normal else torch.rand
    return source(shape, generator=rng).to(like.device)


def draw_index(count: int, batch: int, like: Tensor, rng: torch.Generator) -> Tensor:
    """Indices below `count`, int64 [batch], from a generator on the CPU, on the device of `like`."""
    return torch.randint(count, (batch,), generator=rng).to(like.device)
