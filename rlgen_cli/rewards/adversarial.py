"""A discriminator, trained along with the agent on real against finished samples; its logit is the score."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlgen_cli.core import ranks
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.errors import require
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import EnvSpec, Metrics, Transition, View
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.generators.losses import AdversarialLoss, JudgedBatch
from rlgen_cli.memory.sample_buffer import SampleBuffer
from rlgen_cli.rewards.discriminators import Discriminator


class FakeSamples:
    """The finished samples that a discriminator learns from.

    Args:
        buffer_size: samples kept, by all ranks together.
        recent, old_fraction: this fraction of a batch comes from all of them, the others from the newest `recent`.
        shape, dtype: of a stored sample.
    """

    def __init__(
        self,
        *,
        buffer_size: int,
        recent: int,
        old_fraction: float,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        require(1 <= recent <= buffer_size, f"recent: must be from 1 to buffer_size = {buffer_size}, got {recent}.")
        require(0.0 <= old_fraction <= 1.0, f"old_fraction: must be in [0, 1], got {old_fraction}.")
        self.recent, self.old_fraction = max(recent // ranks.count(), 1), old_fraction
        self.samples = SampleBuffer(max(buffer_size // ranks.count(), 1), shape, dtype, device)

    def add(self, rows: Tensor, label: Tensor | None, done: Tensor) -> None:
        """Keep those of rows [N, …] and labels [N] that are `done`, bool [N]."""
        self.samples.add(rows, label, done)

    def draw(self, batch_size: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Samples [B, …] and their labels [B]; at least one sample must be kept."""
        kept = self.samples.count
        newest = torch.minimum(kept, torch.full_like(kept, self.recent)).expand(batch_size).clone()
        newest[: round(self.old_fraction * batch_size)] = kept
        return self.samples.draw(newest, rng)

    def state_dict(self) -> dict[str, Any]:
        return self.samples.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.samples.load_state_dict(state)


class Adversarial:
    """How real a sample looks: the discriminator's logit. A `core.protocols.Learner`.

    Args:
        net: builds the discriminator (discriminators.py), for pictures or sequences.
        loss: what it descends (generators/losses.py), with its penalty. buffer: builds the memory of finished samples.
        noise_std: standard deviation of the noise added to real and made samples while training.
        learning_rate: Adam's, a schedule over the training.
        interval: batched environment steps per update. batch_size: real samples, and as many made ones.

    Raises:
        UserError: for a value out of range.
    """

    judges, learned = "any", True
    needs: frozenset[str] = frozenset()
    prefers: frozenset[str] = frozenset(["label"])
    by_rank = frozenset(["buffer", "steps"])

    def __init__(
        self,
        *,
        spec: EnvSpec,
        real: Images | Sequences,
        rng: torch.Generator,
        device: torch.device,
        net: Callable[..., Discriminator],
        loss: AdversarialLoss,
        buffer: Callable[..., FakeSamples],
        noise_std: float,
        learning_rate: Linear,
        batch_size: int,
        interval: int,
    ) -> None:
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(interval >= 1, f"interval: must be at least 1, got {interval}.")
        self.data, self.rng, self.device = real, rng, device
        self.loss, self.learning_rate, self.noise_std = loss, learning_rate, float(noise_std)
        self.batch_size, self.interval = ranks.share(batch_size, "batch_size"), interval
        self.learning_starts = spec.max_steps  # by then every environment has finished a sample
        self.conditional = "label" in spec.context
        self.net = net(spec=spec).to(device)
        self.optimizer = PlainAdam(self.net.parameters(), learning_rate(0.0), betas=(0.0, 0.99))
        self.buffer = buffer(shape=self.net.shape, dtype=self.net.dtype, device=device)
        self.steps, self.updates = 0, 0

    def __call__(self, view: View) -> Tensor:
        return self.net.score(view, self._label(view))

    def observe(self, step: Transition) -> None:
        """Keep the samples that the step finished."""
        assert step.next_view is not None
        self.buffer.add(self.net.stored(step.next_view), self._label(step.next_view), step.terminated)
        self.steps += 1

    def update(self, progress: float) -> Metrics:
        """One step of Adam every `interval` environment steps, once every environment has finished a sample."""
        if self.steps <= self.learning_starts or self.steps % self.interval:
            return {}
        self.optimizer.learning_rate = self.learning_rate(progress)
        real, real_label, fake, fake_label = self._batch()
        penalty = self.loss.due_penalty(self.updates)
        if penalty is not None:
            real, fake = _with_grad(real, penalty.on_real), _with_grad(fake, penalty.on_fake)
        real_logit, fake_logit = self.net(real, real_label), self.net(fake, fake_label)  # [B] each
        loss = self.loss.discriminator(real_logit, fake_logit)
        if penalty is not None:
            batch = JudgedBatch(
                real=real, fake=fake, real_logit=real_logit, fake_logit=fake_logit,
                logits=lambda between: self.net(between, fake_label), rng=self.rng,
            )  # fmt: skip
            loss = loss + penalty.interval * penalty.weight * penalty(batch)
        self.optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(self.optimizer.parameters)
        self.optimizer.step()
        self.updates += 1
        return {
            "loss": loss.detach(),
            "real_logit": real_logit.detach().mean(),
            "fake_logit": fake_logit.detach().mean(),
        }

    def _batch(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embedded real samples with noise [B, …] and their labels [B], and as many made ones with theirs."""
        real, real_label = self._real()
        fake, fake_label = self.buffer.draw(self.batch_size, self.rng)
        x = self.net.embed(self.net.crop(torch.cat([real, fake]), self.rng))
        x = x + self.noise_std * torch.randn(x.shape, generator=self.rng, device=self.device)
        real_x, fake_x = x.chunk(2)
        return real_x, real_label if self.conditional else None, fake_x, fake_label if self.conditional else None

    def _real(self) -> tuple[Tensor, Tensor]:
        """Real samples [B, …] as the discriminator stores them, and their labels [B]."""
        count = len(self.data.images if isinstance(self.data, Images) else self.data.tokens)
        index = torch.randint(count, (self.batch_size,), generator=self.rng, device=self.device)
        label = self.data.labels[index] if isinstance(self.data, Images) else torch.zeros_like(index)
        return self.net.real(self.data, index), label

    def _label(self, view: View) -> Tensor | None:
        return view.context["label"] if self.conditional else None

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "buffer": self.buffer.state_dict(),
            "steps": self.steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.buffer.load_state_dict(state["buffer"])
        self.steps, self.updates = state["steps"], state["updates"]


def _with_grad(x: Tensor, needed: bool) -> Tensor:
    """`x` with a gradient, if one is needed; embedded tokens have one already."""
    return x.requires_grad_() if needed and not x.requires_grad else x
