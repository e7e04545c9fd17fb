"""A discriminator, trained along with the agent on real against finished samples; its logit is the score."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.core.errors import require
from rlgen_cli.generators.losses import discriminator_loss, slope_between, squared_slope
from rlgen_cli.memory.sample_buffer import Finished
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.types import EnvSpec, Metrics, View


class Adversarial:
    """How real a sample looks.

    Losses: `nonsaturating` (Goodfellow et al. 2014) with lazy R1, half of it taken on fakes (R2; both Mescheder et al.
    2018), or `wgan_gp` (Gulrajani et al. 2017); `penalty` weighs the gradient penalty in both.

    Args:
        net: builds the discriminator (discriminators.py), for pictures or sequences. pairs: see there.
        noise: standard deviation of the noise added to both sides while training.
        memory: finished samples kept; a share `old` of each batch's fakes comes from all of them, the rest from the
            newest `recent`.
        learning_rate: a schedule over the training.
        interval: batched environment steps per update. batch_size: real images, and as many fakes.
    """

    judges, changes = "any", True
    needs: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset(["label"])

    def __init__(
        self,
        *,
        spec: EnvSpec,
        real: Any,
        rng: torch.Generator,
        device: torch.device,
        net: Callable[..., nn.Module],
        pairs: bool,
        loss: Literal["nonsaturating", "wgan_gp"],
        penalty: float,
        penalty_interval: int,
        noise: float,
        learning_rate: Linear,
        batch_size: int,
        interval: int,
        memory: int,
        recent: int,
        old: float,
    ) -> None:
        require(penalty >= 0, f"penalty: must be at least 0, got {penalty}.")
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(min(penalty_interval, interval) >= 1, "interval: must be at least 1.")
        require(1 <= recent <= memory, f"recent: must be from 1 to memory = {memory}, got {recent}.")
        require(0.0 <= old <= 1.0, f"old: must be in [0, 1], got {old}.")
        require(
            not pairs or "target" in spec.context,
            "pairs: a sample is judged beside its target, which env.condition=target (or both) gives.",
        )
        self.data, self.rng, self.device = real, rng, device
        self.loss, self.penalty, self.penalty_interval = loss, float(penalty), penalty_interval
        self.learning_rate = learning_rate
        self.noise, self.batch_size, self.interval = float(noise), batch_size, interval
        self.recent, self.from_old, self.warmup = recent, round(old * batch_size), spec.max_steps
        self.conditional = "label" in spec.context
        built: Any = net(spec=spec, pairs=pairs)
        self.net: Any = built.to(device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=learning_rate(0.0), betas=(0.0, 0.99), foreach=True)
        self.made = Finished(memory, tuple(self.net.shape), self.net.dtype, device)
        self.calls, self.updates = 0, 0

    def __call__(self, view: View) -> Tensor:
        return self.net(self.net.seen(view), self._label(view))

    def learn(self, after: View, done: Tensor, progress: float) -> Metrics:
        """Keep the finished samples; every `interval` calls, one update, once every environment has finished one."""
        self.made.add(self.net.keep(after), after.context.label, done)
        self.calls += 1
        if self.calls <= self.warmup or self.calls % self.interval:
            return {}
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        return self._update()

    def _label(self, view: View) -> Tensor | None:
        return view.context.label if self.conditional else None

    def _update(self) -> Metrics:
        real, real_label = self._real()
        fake, fake_label = self._fake()
        x = self.net.embed(self.net.cut(torch.cat([real, fake]), self.rng))
        x = x + self.noise * torch.randn(x.shape, generator=self.rng, device=self.device)
        label = torch.cat([real_label, fake_label]) if self.conditional else None
        penalise = self.penalty > 0 and self.updates % self.penalty_interval == 0
        if penalise and not x.requires_grad:  # embedded tokens have a gradient already
            x.requires_grad_()
        on_real, on_fake = self.net(x, label).chunk(2)
        if self.loss == "nonsaturating":
            loss = discriminator_loss("nonsaturating", on_real, on_fake)
            if penalise:
                slope = squared_slope(torch.cat([on_real, on_fake]), x)
                loss = loss + self.penalty_interval * self.penalty / 2 * slope.mean()
        else:
            loss = discriminator_loss("wasserstein", on_real, on_fake)
            if penalise:
                own = None if label is None else label[: self.batch_size]
                one, two = x.detach().chunk(2)
                slope = slope_between(lambda x: self.net(x, own), one, two, self.rng)
                loss = loss + self.penalty_interval * self.penalty * slope.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return {"loss": loss.detach(), "on_real": on_real.detach().mean(), "on_fake": on_fake.detach().mean()}

    def _real(self) -> tuple[Tensor, Tensor]:
        count = len(self.data[0])  # images or tokens
        index = torch.randint(count, (self.batch_size,), generator=self.rng, device=self.device)
        label = self.data.labels[index] if self.conditional else torch.zeros_like(index)
        return self.net.real(self.data, index), label

    def _fake(self) -> tuple[Tensor, Tensor]:
        """Finished samples, some of the newest and some of all that are kept."""
        kept = self.made.count
        reach = torch.minimum(kept, torch.full_like(kept, self.recent)).expand(self.batch_size).clone()
        reach[: self.from_old] = kept
        return self.made.draw(reach, self.rng)

    def state_dict(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "made": self.made.state_dict(),
            "calls": self.calls,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.made.load_state_dict(state["made"])
        self.calls, self.updates = state["calls"], state["updates"]
