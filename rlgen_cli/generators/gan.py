"""A generator, its moving average, and a discriminator: trained alone, with a reward fused in, or along with a policy.

Deviations from the papers, numbered:
1. One batch of pictures serves an update of the discriminator and the one of the generator that follows it.
2. A gradient penalty is taken every `penalty_interval` updates and weighs as much more then (Karras et al. 2020).
3. The reward's gradient can be scaled to the adversarial one's length, and its advantage to deviation 1, so that λ has
   no unit.
"""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from tqdm import tqdm

from rlgen_cli.core.checkpoint import write_atomic
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.core.errors import require
from rlgen_cli.generators.augment import augment, check
from rlgen_cli.generators.directions import learned
from rlgen_cli.generators.losses import Loss, discriminator_loss, generator_loss, slope_between, squared_slope
from rlgen_cli.generators.sequences import as_pictures
from rlgen_cli.generators.latent_mapper import Shaper
from rlgen_cli.memory.sample_buffer import Finished
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.types import Context, Metrics, Reward, View

log = logging.getLogger(__name__)
SETTLE = 4  # updates between two batches for the average's statistics
CHARTED = 128  # latents around which directions are looked for


class GAN:
    """min_G max_D V(G, D) − λ E[R(G(z))].

    Args:
        generator, discriminator: build the networks (networks.py). conditional: they know the label.
        latent: numbers in z, standard normal.
        loss: of V (losses.py). penalise: the squared slope on real samples (r1), on these and made ones (r1r2), or the
            slope's distance from 1 between them (wgan_gp). penalty: its weight, which is γ / 2 of r1.
        average: decay of the generator's moving average, which is what makes samples; it begins faster.
        augment: of colour, translation and cutout; for data of a few hundred pictures.
        fused: λ. balance: fixed, or gradient: the reward's gradient on a picture is as long as the discriminator's.
        spread: standard deviation of what is added to z for a reward without gradient (see Shaper).
        learning_rate: a schedule. pace: the generator's learning rate, as a share of the discriminator's.
        betas: Adam's. steps: updates until it is trained.
        chosen: with joint=true, share of a batch's latents that are those of the policy's finished samples.
        interval: with joint=true, batched environment steps per update. memory: finished samples that are kept.

    Raises:
        UserError: for a value out of range, or labels asked of data without any.
    """

    differentiable = True
    trains = True

    def __init__(
        self,
        *,
        real: Images | Sequences,
        rng: torch.Generator,
        device: torch.device,
        generator: Callable[..., nn.Module],
        discriminator: Callable[..., nn.Module],
        conditional: bool,
        latent: int,
        loss: Loss,
        penalise: Literal["none", "r1", "r1r2", "wgan_gp"],
        penalty: float,
        penalty_interval: int,
        average: float,
        augment: list[str],
        fused: float,
        balance: Literal["fixed", "gradient"],
        spread: float,
        learning_rate: Linear,
        pace: float,
        betas: list[float],
        batch_size: int,
        steps: int,
        chosen: float,
        interval: int,
        memory: int,
    ) -> None:
        check(augment)
        require(penalty >= 0, f"penalty: must be at least 0, got {penalty}.")
        require(min(penalty_interval, interval) >= 1, "penalty_interval and interval must be at least 1.")
        require(0.0 <= average < 1.0, f"average: must be in [0, 1), got {average}.")
        require(fused >= 0, f"fused: must be at least 0, got {fused}.")
        require(spread > 0, f"spread: must be above 0, got {spread}.")
        require(batch_size >= 2, f"batch_size: must be at least 2, got {batch_size}.")
        require(steps >= 1, f"steps: must be at least 1, got {steps}.")
        require(0.0 <= chosen <= 1.0, f"chosen: must be in [0, 1], got {chosen}.")
        require(memory >= batch_size, f"memory: must be at least batch_size = {batch_size}, got {memory}.")
        require(len(betas) == 2, f"betas: must be two numbers, got {betas}.")
        require(not conditional or bool(real.classes), "conditional: needs data with labels; this data has none.")
        kind = "sequences" if isinstance(real, Sequences) else "pictures"
        if isinstance(real, Sequences):
            require(not augment, f"augment: changes pictures, and these are sequences; use [], got {augment}.")
            real = as_pictures(real)
        self.real, self.rng, self.device = real, rng, device
        self.latent, self.classes = latent, len(real.classes) if conditional else 0
        self.shape: tuple[int, int, int] = tuple(real.images.shape[1:])  # type: ignore[assignment]
        made: Any = generator(sample=self.shape, latent=latent, classes=self.classes).to(device)
        fit = "melody" if kind == "sequences" else "r1"
        require(made.makes == kind, f"generator: makes {made.makes}, and the data are {kind}; use gan={fit}.")
        self.generator, self.average = made, copy.deepcopy(made).requires_grad_(False).eval()
        self.coordinates: int = made.coordinates
        self.finished: Callable[[Tensor], Tensor] = made.finished
        self.discriminator: Any = discriminator(sample=self.shape, classes=self.classes).to(device)
        self.shaper = Shaper(latent, self.classes, float(spread)).to(device)
        self.loss, self.penalise, self.penalty = loss, penalise, float(penalty)
        self.penalty_interval, self.decay, self.kinds = penalty_interval, float(average), augment
        self.fused, self.balance = float(fused), balance
        require(pace > 0, f"pace: must be above 0, got {pace}.")
        self.learning_rate, self.pace, self.batch_size, self.steps = learning_rate, float(pace), batch_size, steps
        self.chosen, self.interval = round(chosen * batch_size), interval
        one, two = betas
        trained = {"generator": made, "discriminator": self.discriminator, "shaper": self.shaper}
        self.optimizers = {
            name: torch.optim.Adam(net.parameters(), learning_rate(0.0), (one, two), foreach=True)
            for name, net in trained.items()
        }
        self.picked = Finished(memory, (latent,), torch.float, device)  # the policy's latents
        # By name, [latent, latent], a row each; found once it is trained (`chart`).
        self.directions = {name: torch.eye(latent, device=device) for name in ("principal", "learned")}
        self.updates, self.calls = 0, 0
        self.smooth: bool | None = None  # not yet known

    def __call__(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Pictures [N, C, H, W] in [0, 1]; see networks.Generator."""
        return self.average(self.shaper(z, label), label, shift)

    def judge(self, images: Tensor, label: Tensor | None) -> Tensor:
        """How real pictures look, logits [N]."""
        return self.discriminator(images, label if self.classes else None)

    def train(self, reward: Reward) -> None:
        """All `steps` updates, with a bar of its own."""
        log.info("training the GAN once (%d updates)", self.steps)
        for i in tqdm(range(self.steps), desc="GAN", unit=" updates", disable=None):
            self.update(i / self.steps, reward)
        self.chart()

    @torch.no_grad()
    def chart(self) -> None:
        """Find the directions in the latent space that matter, from the first to the last.

        principal: what changes the first layer most, its right singular vectors (Shen and Zhou 2021). learned: what
        changes most what the discriminator sees (directions.py).
        """
        self.directions["principal"] = torch.linalg.svd(self.average.first.weight, full_matrices=True).Vh
        rng = torch.Generator(device=self.device).manual_seed(0)
        z = torch.randn(CHARTED, self.latent, generator=rng, device=self.device)
        label = torch.arange(CHARTED, device=self.device) % max(self.classes, 1)
        self.directions["learned"] = learned(lambda z: self.discriminator.features(self(z, label)), z)

    def export(self, folder: Path) -> None:
        """What makes samples, as architectures.Shaped: weights, and a config that says so."""
        folder.mkdir(exist_ok=True)
        arguments = {
            "sample": self.shape, "latent": self.latent, "classes": self.classes,
            "width": self.average.sizes[0] // 2, "spread": self.shaper.spread,
        }  # fmt: skip
        write_atomic(folder / "config.json", json.dumps({"class": "Shaped", "arguments": arguments}, indent=1).encode())
        parts = {"generator": self.average, "shaper": self.shaper}
        weights = {
            f"{name}.{key}": value.cpu() for name, net in parts.items() for key, value in net.state_dict().items()
        }
        write_atomic(folder / "model.safetensors", save_tensors(weights))

    def learn(self, after: View, done: Tensor, progress: float, reward: Reward) -> Metrics:
        """Along with a policy: keep the latents of finished samples, and every `interval` calls make an update."""
        assert after.latent is not None
        self.picked.add(after.latent, after.context.label, done)
        self.calls += 1
        return self.update(progress, reward) if self.calls % self.interval == 0 else {}

    def update(self, progress: float, reward: Reward) -> Metrics:
        """One update of the discriminator, one of the generator and its average."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate(progress) * (1.0 if name == "discriminator" else self.pace)
        real, real_label = self._real()
        z, label = self._latents(real_label)
        self.generator.train()
        fake = self.generator(z, label)
        metrics = self._judge(real, fake.detach(), label)
        metrics |= self._make(real, fake, z, label, reward)
        if not self._smooth(reward):
            metrics |= self._shape(real, z, label, reward)
        self._follow(z, label)
        self.updates += 1
        return metrics

    def _smooth(self, reward: Reward) -> bool:
        """Whether gradients pass through all that the generator is asked for."""
        if self.smooth is None and self.fused:
            x = torch.full((2, *self.shape), 0.5, device=self.device, requires_grad=True)
            z, label = torch.zeros(2, self.latent, device=self.device), torch.zeros(2, dtype=torch.long)
            self.smooth = self._rewarded(x, z, label.to(self.device), reward).requires_grad
        return self.smooth is not False

    def _rewarded(self, x: Tensor, z: Tensor, label: Tensor, reward: Reward) -> Tensor:
        """The reward of finished pictures, [N]."""
        sample = self.finished(x)
        nothing = torch.full_like(sample, 0 if sample.is_floating_point() else -1)
        prime = None if sample.is_floating_point() else nothing[:, 0]
        view = View(sample, Context(label=label, prime=prime, origin=z.detach()), torch.ones_like(label), z.detach())
        return reward(view._replace(sample=nothing), view, torch.ones_like(label, dtype=torch.bool)).total

    def _real(self) -> tuple[Tensor, Tensor]:
        index = torch.randint(len(self.real.images), (self.batch_size,), generator=self.rng, device=self.device)
        return self.real.images[index].float() / 255, self.real.labels[index]

    def _latents(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """z [B, latent] and labels: from the prior and the data, and where a policy has chosen some, from these."""
        z = torch.randn(self.batch_size, self.latent, generator=self.rng, device=self.device)
        if not self.chosen or not self.calls:
            return z, label
        reach = self.picked.count.expand(self.chosen)
        picked, asked = self.picked.draw(reach, self.rng)
        some = reach > 0
        z[: self.chosen] = torch.where(some.unsqueeze(1), picked, z[: self.chosen])
        label = label.clone()
        label[: self.chosen] = torch.where(some, asked, label[: self.chosen])
        return z, label

    def _seen(self, x: Tensor, label: Tensor) -> Tensor:
        """Logits of pictures as the discriminator sees them in training."""
        return self.judge(augment(x, self.kinds, self.rng), label)

    def _judge(self, real: Tensor, fake: Tensor, label: Tensor) -> Metrics:
        """The discriminator's step. Both halves of the batch have the labels of the real one."""
        due = self.penalise != "none" and self.penalty > 0 and self.updates % self.penalty_interval == 0
        slopes = due and self.penalise in ("r1", "r1r2")
        real = real.requires_grad_(slopes)
        fake = fake.requires_grad_(slopes and self.penalise == "r1r2")
        on_real, on_fake = self._seen(torch.cat([real, fake]), torch.cat([label, label])).chunk(2)
        loss = discriminator_loss(self.loss, on_real, on_fake)
        total = loss
        if due:
            total = loss + self.penalty_interval * self.penalty * self._penalty(real, fake, on_real, on_fake, label)
        self._descend("discriminator", total)
        real.requires_grad_(False)
        return {"loss": loss.detach(), "on_real": on_real.detach().mean(), "on_fake": on_fake.detach().mean()}

    def _penalty(self, real: Tensor, fake: Tensor, on_real: Tensor, on_fake: Tensor, label: Tensor) -> Tensor:
        if self.penalise == "wgan_gp":
            return slope_between(lambda x: self._seen(x, label), real, fake, self.rng).mean()
        slope = squared_slope(on_real, real)
        return (slope + squared_slope(on_fake, fake) if self.penalise == "r1r2" else slope).mean()

    def _make(self, real: Tensor, fake: Tensor, z: Tensor, label: Tensor, reward: Reward) -> Metrics:
        """The generator's step, along the pictures' gradient."""
        leaf = fake.detach().requires_grad_()
        on_real = self._seen(real, label).detach() if self.loss == "relativistic" else None
        loss = generator_loss(self.loss, on_real, self._seen(leaf, label))
        (slope,) = torch.autograd.grad(loss, leaf)
        metrics = {"generator_loss": loss.detach()}
        if self.fused and self._smooth(reward):
            value = self._rewarded(leaf, z, label, reward).mean()
            slope = slope - self.fused * self._wish(value, leaf, slope)
            metrics["reward"] = value.detach()
        self._descend("generator", (fake * slope).sum())
        return metrics

    def _shape(self, real: Tensor, z: Tensor, label: Tensor, reward: Reward) -> Metrics:
        """The shaper's step: the same loss, by its gradient, and the reward, by the score function. The generator does
        not learn from what is shaped, or it would learn to undo it."""
        drawn, log_prob = self.shaper.draw(z, label, self.rng)
        self.generator.eval()  # normalised by its own batch, a shift of all would be none
        made = self.generator(drawn, label)
        on_real = self._seen(real, label).detach() if self.loss == "relativistic" else None
        value = self._rewarded(made.detach(), drawn, label, reward)
        advantage = value - value.mean()
        if self.balance == "gradient":
            advantage = advantage / (advantage.std() + 1e-6)
        loss = generator_loss(self.loss, on_real, self._seen(made, label))
        self._descend("shaper", loss - self.fused * (log_prob * advantage).mean())
        return {"reward": value.mean()}

    def _wish(self, value: Tensor, x: Tensor, slope: Tensor) -> Tensor:
        """The mean reward's gradient on the pictures, perhaps as long as the loss's `slope`."""
        (wish,) = torch.autograd.grad(value, x)
        return wish * slope.norm() / (wish.norm() + 1e-12) if self.balance == "gradient" else wish

    def _descend(self, which: str, loss: Tensor) -> None:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight, slope in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            weight.grad = slope
        optimizer.step()

    @torch.no_grad()
    def _follow(self, z: Tensor, label: Tensor) -> None:
        """Move the average towards the generator. Its normalisation needs statistics of its own: those of the
        generator belong to other weights."""
        decay = min(self.decay, (1 + self.updates) / (11 + self.updates))
        own, new = dict(self.average.named_parameters()), dict(self.generator.named_parameters())
        torch._foreach_lerp_(list(own.values()), [new[name] for name in own], 1 - decay)
        if self.updates % SETTLE == 0:
            for module in self.average.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = max(0.02, 1 / (1 + self.updates // SETTLE))
            self.average.train()(z, label)
            self.average.eval()

    def networks(self) -> dict[str, nn.Module]:
        return {
            "generator": self.generator, "average": self.average,
            "discriminator": self.discriminator, "shaper": self.shaper,
        }  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {
            **{name: net.state_dict() for name, net in self.networks().items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "picked": self.picked.state_dict(),
            "directions": self.directions,
            "rng": self.rng.get_state(),  # so that one from the cache goes on like one just trained
            "updates": self.updates,
            "calls": self.calls,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, net in self.networks().items():
            net.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.picked.load_state_dict(state["picked"])
        self.updates, self.calls, self.directions = state["updates"], state["calls"], state["directions"]
        self.rng.set_state(state["rng"].cpu())
