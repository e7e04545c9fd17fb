"""Training a GAN along with the policy that steers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import Metrics, Transition
from rlgen_cli.memory.sample_buffer import SampleBuffer

if TYPE_CHECKING:
    from rlgen_cli.generators.gan import GAN


@dataclass(frozen=True, kw_only=True)
class JointTraining:
    """How a GAN learns along with a policy, where joint=true.

    Args:
        policy_latent_fraction: of a batch's latents, those with which the policy finished samples; the others are drawn
            from the prior.
        interval: batched environment steps for each update.
        buffer_size: finished samples whose latents are kept.
    """

    policy_latent_fraction: float
    interval: int
    buffer_size: int

    def __post_init__(self) -> None:
        fraction = self.policy_latent_fraction
        require(0.0 <= fraction <= 1.0, f"policy_latent_fraction: must be in [0, 1], got {fraction}.")
        require(self.interval >= 1, f"interval: must be at least 1, got {self.interval}.")
        require(self.buffer_size >= 1, f"buffer_size: must be at least 1, got {self.buffer_size}.")


class JointGANLearner:
    """A `core.protocols.Learner`: keeps the latents of finished samples, and trains the GAN on them, too."""

    by_rank = frozenset(["policy_latents"])

    def __init__(self, gan: GAN, settings: JointTraining) -> None:
        self.gan, self.interval = gan, settings.interval
        self.policy_rows = round(settings.policy_latent_fraction * gan.batch_size)
        kept = max(settings.buffer_size // ranks.count(), 1)
        self.policy_latents = SampleBuffer(kept, (gan.generator.latent,), torch.float, gan.device)
        self.calls = 0

    def observe(self, step: Transition) -> None:
        """Keep the latents and labels of the samples that are finished."""
        assert step.next_view is not None
        view = step.next_view
        self.policy_latents.add(view.info["latent"].detach(), view.context.get("label"), step.terminated)

    def update(self, progress: float) -> Metrics:
        """One update of the GAN every `interval` calls, {} between them."""
        self.calls += 1
        if self.calls % self.interval:
            return {}
        real, real_label = self.gan.draw_real()
        z, label = self._mixed_latents(self.gan.draw_latents(), real_label)
        return self.gan.update_on(progress, real, real_label, z, label)

    def _mixed_latents(self, z: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, latent] and labels [B] that samples are made of: the first rows are the policy's, as soon as it
        has finished any."""
        rows = self.policy_rows
        if not rows:
            return z, label
        newest = self.policy_latents.count.expand(rows)
        policy_z, policy_label = self.policy_latents.draw(newest, self.gan.rng)
        known = newest > 0  # [rows]
        first_z = torch.where(known.unsqueeze(1), policy_z, z[:rows])
        first_label = torch.where(known, policy_label, label[:rows])
        return torch.cat([first_z, z[rows:]]), torch.cat([first_label, label[rows:]])

    def state_dict(self) -> dict[str, Any]:
        return {"gan": self.gan.state_dict(), "policy_latents": self.policy_latents.state_dict(), "calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.gan.load_state_dict(state["gan"])
        self.policy_latents.load_state_dict(state["policy_latents"])
        self.calls = state["calls"]
