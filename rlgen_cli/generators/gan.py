"""A generator, the moving average of its weights, and a discriminator: trained alone, with a reward fused in, or along
with a policy.

Deviations from the papers, numbered:

1. One batch of real samples serves an update of the discriminator and the one of the generator that follows it.
2. A gradient penalty is taken every few updates and weighs as much more then (Karras et al. 2020).
3. The reward's gradient can be scaled to the adversarial one's length, and its advantage to deviation 1, so that λ has
   no unit.

When to use it: to have something to steer, or as a generator of small pictures or sequences by itself (`rlgen
pretrain env=latent_gan`). `conditional` gave the lower Fréchet distance.

What to expect: digits at 28 × 28 within one to three minutes on a core, coloured pictures only crudely in that time
(docs/results/gan.md, gan_sprites.md and gan_emoji.md, which measured `r1`; the others have no measured distance).
"""

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from rlgen_cli.core import ranks
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import require
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.optimizer import require_rate
from rlgen_cli.core.protocols import Reward
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.specs import Metrics
from rlgen_cli.core.stages import Stage
from rlgen_cli.data.images import Images
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.generators import augment as augmentation
from rlgen_cli.generators.fused_reward import FusedReward
from rlgen_cli.generators.gan_generator import GANGenerator
from rlgen_cli.generators.joint import JointGANLearner, JointTraining
from rlgen_cli.generators.latent_mapper import LatentMapper
from rlgen_cli.generators.losses import AdversarialLoss, JudgedBatch
from rlgen_cli.generators.sequences import as_pictures

STATISTICS_INTERVAL = 4  # updates between two batches for the moving average's normalisation


@dataclass(frozen=True, kw_only=True)
class GANOptimizer:
    """Adam's settings.

    Args:
        learning_rate: the discriminator's, a schedule.
        generator_lr_ratio: the generator's learning rate over the discriminator's.
        betas: Adam's.
    """

    learning_rate: Linear
    generator_lr_ratio: float
    betas: list[float]

    def __post_init__(self) -> None:
        require_rate(self.learning_rate)
        ratio = self.generator_lr_ratio
        require(ratio > 0, f"generator_lr_ratio: must be above 0, got {ratio}.")
        require(len(self.betas) == 2, f"betas: must be two numbers, got {self.betas}.")

    def build(self, net: nn.Module) -> PlainAdam:
        """Adam over the weights of `net`."""
        first, second = self.betas
        return PlainAdam(net.parameters(), self.learning_rate(0.0), (first, second))


class GAN:
    """min_G max_D V(G, D) − λ E[R(G(z))]; a `TrainsGenerator`, whose attribute `generator` makes the samples.

    Args:
        real: the training data.
        rng: the run's random stream for generators.
        device: where everything lies.
        cache_key: what a trained GAN depends on: this config, the data, the seed, and the reward where it is fused in.
        network: builds the generator's network (networks.py, sequences.py).
        discriminator: builds the discriminator's.
        conditional: both know the label.
        latent: numbers in z, standard normal.
        loss: of V, with its gradient penalty (losses.py).
        optimizer: learning rates.
        batch_size: real samples, and as many generated ones, in an update of all ranks.
        updates: until it is trained.
        ema_decay: of the exponential moving average of the generator's weights, which makes the samples; it begins
            faster.
        augment: any of colour, translation and cutout (augment.py); for data of a few hundred pictures.
        fused_reward: the reward as a part of the generator's loss.
        joint_training: how it learns along with a policy.

    Raises:
        UserError: for a value out of range, or labels asked of data without any.
    """

    def __init__(
        self,
        *,
        real: Images | Sequences,
        rng: torch.Generator,
        device: torch.device,
        cache_key: str,
        network: Callable[..., nn.Module],
        discriminator: Callable[..., nn.Module],
        conditional: bool,
        latent: int,
        loss: AdversarialLoss,
        optimizer: GANOptimizer,
        batch_size: int,
        updates: int,
        ema_decay: float,
        augment: list[str],
        fused_reward: FusedReward,
        joint_training: JointTraining,
    ) -> None:
        augmentation.check(augment)
        require(0.0 <= ema_decay < 1.0, f"ema_decay: must be in [0, 1), got {ema_decay}.")
        require(batch_size >= 2, f"batch_size: must be at least 2, got {batch_size}.")
        require_memory(4 * batch_size * math.prod(real[0].shape[1:]), f"batch_size: {batch_size} samples")
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        require(not conditional or bool(real.classes), "conditional: needs data with labels; this data has none.")
        self.makes = "sequences" if isinstance(real, Sequences) else "pictures"
        if isinstance(real, Sequences):
            require(not augment, f"augment: changes pictures, and these are sequences; use [], got {augment}.")
            real = as_pictures(real)
        self.real, self.rng, self.device, self.cache_key = real.to(device), rng, device, cache_key
        channels, high, wide = real.images.shape[1:]
        shape, classes = (channels, high, wide), len(real.classes) if conditional else 0
        self.network: Any = network(sample=shape, latent=latent, classes=classes).to(device)
        recipe = "melody" if self.makes == "sequences" else "r1"
        require(
            self.network.makes == self.makes,
            f"network: makes {self.network.makes}, and the data are {self.makes}; use generator={recipe}.",
        )
        ema = copy.deepcopy(self.network)
        judge = discriminator(sample=shape, classes=classes).to(device)
        mapper = LatentMapper(latent, classes).to(device)
        self.generator = GANGenerator(network=ema, mapper=mapper, discriminator=judge, shape=shape).to(device)
        self.loss, self.optimizer, self.num_updates = loss, optimizer, updates
        self.batch_size = ranks.share(batch_size, "batch_size")
        self.ema_decay, self.augment = float(ema_decay), augment
        self.fused_reward, self.joint_training = fused_reward, joint_training
        trained = {"generator": self.network, "discriminator": judge, "mapper": mapper}
        self.optimizers = {name: optimizer.build(net) for name, net in trained.items()}
        self.updates_done = 0
        self._set_training(False)

    def attach_reward(self, reward: Reward) -> None:
        """The run's reward, for `fused_reward`."""
        self.fused_reward.attach(reward)

    def stage(self) -> Stage:
        """The training that comes before the run."""
        return Stage(
            name="generator",
            trainable=self,
            updates=self.num_updates,
            interval=max(1, self.num_updates // 20),
            key=self.cache_key,
            finish=self.generator.find_directions,
            streams=("generator",),
        )

    def joint_learner(self) -> JointGANLearner:
        """What trains the GAN along with a policy."""
        return JointGANLearner(self, self.joint_training)

    def export(self, folder: Path) -> None:
        """What makes samples, as architectures.MappedGenerator: weights, and a config that says so. Sequences are left
        out, since generator=file reads pictures."""
        if self.makes == "sequences":
            return
        folder.mkdir(exist_ok=True)
        made, width = self.generator, self.network.width
        arguments = {"sample": list(made.shape), "latent": made.latent, "classes": made.classes, "width": width}
        config = {"class": "MappedGenerator", "arguments": arguments}
        write_atomic(folder / "config.json", json.dumps(config, indent=1).encode())
        saved = nn.ModuleDict({"generator": made.network, "mapper": made.mapper}).state_dict()
        weights = {name: value.cpu() for name, value in saved.items()}
        write_atomic(folder / "model.safetensors", save_tensors(weights))

    def update(self, progress: float) -> Metrics:
        """One update on real samples and on latents of the prior."""
        real, label = self.draw_real()
        return self.update_on(progress, real, label, self.draw_latents(), label)

    def draw_real(self) -> tuple[Tensor, Tensor]:
        """Real samples [B, C, H, W] in [0, 1] and their labels [B]."""
        count = self.real.images.shape[0]
        index = torch.randint(count, (self.batch_size,), generator=self.rng, device=self.device)
        return self.real.images[index].float() / 255, self.real.labels[index]

    def draw_latents(self) -> Tensor:
        """z [B, latent] of the prior."""
        return torch.randn(self.batch_size, self.generator.latent, generator=self.rng, device=self.device)

    def update_on(self, progress: float, real: Tensor, real_label: Tensor, z: Tensor, label: Tensor) -> Metrics:
        """One update of the discriminator, and one of the generator and its moving average.

        Args:
            progress: of the training, in [0, 1].
            real: real samples [B, C, H, W].
            real_label: their own labels, int64 [B].
            z: latents [B, latent] of the samples that are generated.
            label: int64 [B], what these are asked for.
        """
        self._set_learning_rates(progress)
        self._set_training(True)
        fake = self.network(z, label)
        metrics = self._update_discriminator(real, real_label, fake.detach(), label)
        metrics |= self._update_generator(real, real_label, fake, z, label)
        if self.fused_reward.active and not self._reward_has_gradient():
            metrics |= self._update_mapper(real, real_label, z, label)
        self._update_ema(z, label)
        self._set_training(False)
        self.updates_done += 1
        return metrics

    def _set_training(self, training: bool) -> None:
        """Between updates the discriminator scores without estimating its spectral norms anew, and gradients that flow
        through it or the mapper to an action leave nothing on their weights."""
        self.network.train(training)
        self.generator.discriminator.train(training).requires_grad_(training)
        self.generator.mapper.requires_grad_(training)

    def _set_learning_rates(self, progress: float) -> None:
        rate = self.optimizer.learning_rate(progress)
        for name, optimizer in self.optimizers.items():
            optimizer.learning_rate = rate * (1.0 if name == "discriminator" else self.optimizer.generator_lr_ratio)

    def _reward_has_gradient(self) -> bool:
        z = torch.zeros(2, self.generator.latent, device=self.device)
        return self.fused_reward.differentiable(self.generator.finished, self.generator.shape, z)

    def _logits(self, x: Tensor, label: Tensor) -> Tensor:
        """Logits [N] of samples as the discriminator sees them in training."""
        return self.generator.realism(augmentation.augment(x, self.augment, self.rng), label)

    def _update_discriminator(self, real: Tensor, real_label: Tensor, fake: Tensor, label: Tensor) -> Metrics:
        """Real samples are judged under their own labels, generated ones under those that they were asked for."""
        penalty = self.loss.due_penalty(self.updates_done)
        real = real.detach().requires_grad_(penalty is not None and penalty.on_real)
        fake = fake.detach().requires_grad_(penalty is not None and penalty.on_fake)
        logits = self._logits(torch.cat([real, fake]), torch.cat([real_label, label]))  # [2 B]
        real_logit, fake_logit = logits.chunk(2)
        loss = total = self.loss.discriminator(real_logit, fake_logit)
        if penalty is not None:
            batch = JudgedBatch(
                real=real, fake=fake, real_logit=real_logit, fake_logit=fake_logit,
                logits=lambda x: self._logits(x, label), rng=self.rng,
            )  # fmt: skip
            total = loss + penalty.interval * penalty.weight * penalty(batch)
        self._descend("discriminator", total)
        means = {"real_logit": real_logit.detach().mean(), "fake_logit": fake_logit.detach().mean()}
        return {"discriminator_loss": loss.detach(), **means}

    def _real_logit(self, real: Tensor, real_label: Tensor) -> Tensor | None:
        """Logits [B] of the real samples, where the generator's loss compares with them."""
        return self._logits(real, real_label).detach() if self.loss.relativistic else None

    def _update_generator(self, real: Tensor, real_label: Tensor, fake: Tensor, z: Tensor, label: Tensor) -> Metrics:
        """A step along the gradient on the samples, so that the loss's and the reward's can be compared there."""
        leaf = fake.detach().requires_grad_()
        real_logit = self._real_logit(real, real_label)
        loss = self.loss.generator(real_logit, self._logits(leaf, label))
        (grad,) = torch.autograd.grad(loss, leaf)  # [B, C, H, W]
        metrics = {"generator_loss": loss.detach()}
        if self.fused_reward.active and self._reward_has_gradient():
            values = self.fused_reward.values(self.generator.finished(leaf), z, label)
            grad = grad - self.fused_reward.weight * self.fused_reward.gradient(values, leaf, grad)
            metrics["reward"] = values.detach().mean()
        self._descend("generator", (fake * grad).sum())
        return metrics

    def _update_mapper(self, real: Tensor, real_label: Tensor, z: Tensor, label: Tensor) -> Metrics:
        """The latent mapper's step: the generator's loss, by its gradient, and the reward, by the score function. The
        generator does not learn from mapped latents, or it would learn to undo the mapping."""
        mapped, log_prob = self.generator.mapper.sample(z, label, self.fused_reward.noise_std, self.rng)
        self.network.eval()  # normalised by its own batch, a shift of all samples would be none
        fake = self.network(mapped, label)
        real_logit = self._real_logit(real, real_label)
        values = self.fused_reward.values(self.generator.finished(fake.detach()), mapped.detach(), label).detach()
        loss = self.loss.generator(real_logit, self._logits(fake, label))
        advantage = self.fused_reward.advantage(values)
        self._descend("mapper", loss - self.fused_reward.weight * (log_prob * advantage).mean())
        return {"reward": values.mean()}

    def _descend(self, name: str, loss: Tensor) -> None:
        """One step of the named optimizer; no gradient is left on other networks."""
        optimizer = self.optimizers[name]
        weights = optimizer.parameters
        for weight, grad in zip(weights, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            weight.grad = grad
        ranks.average_gradients(weights)
        optimizer.step()

    @torch.no_grad()
    def _update_ema(self, z: Tensor, label: Tensor) -> None:
        """Move the average towards the generator. Its normalisation needs statistics of its own: those of the
        generator belong to other weights."""
        ema = self.generator.network
        decay = min(self.ema_decay, (1 + self.updates_done) / (11 + self.updates_done))
        averages, weights = dict(ema.named_parameters()), dict(self.network.named_parameters())
        torch._foreach_lerp_(list(averages.values()), [weights[name] for name in averages], 1 - decay)
        if self.updates_done % STATISTICS_INTERVAL == 0:
            for module in ema.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = max(0.02, 1 / (1 + self.updates_done // STATISTICS_INTERVAL))
            ema.train()(z, label)
            ema.eval()

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.state_dict(),
            "network": self.network.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "updates_done": self.updates_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.network.load_state_dict(state["network"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.updates_done = state["updates_done"]
