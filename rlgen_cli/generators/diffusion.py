"""A diffusion or flow model of pictures, trained on data: what env=diffusion begins with, and is compared with.

Deviations from the papers, numbered:

1. Times are drawn one from each of `batch_size` equal parts of [0, 1], which lowers the loss's variance.
2. Without a label the network knows that there is none by its place being zeros, in training (`label_dropout`) and for
   guidance alike.

When to use it: for pictures of 8 to 64 pixels, where a reward is to be learned by a model that keeps making what the
data hold (`rlgen train env=diffusion`), or by itself (`rlgen pretrain env=diffusion`).

What to expect: digits at 28 × 28 after some minutes on two cores (docs/results/diffusion_three.md).
"""

import copy
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.functional import one_hot

from rlgen_cli.core import ranks
from rlgen_cli.core.adam import PlainAdam
from rlgen_cli.core.capacity import require_memory
from rlgen_cli.core.errors import UserError, require
from rlgen_cli.core.files import write_atomic
from rlgen_cli.core.moving_average import follow
from rlgen_cli.core.optimizer import require_rate
from rlgen_cli.core.protocols import NoisePath
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.seeding import of_rank, stream
from rlgen_cli.core.specs import Metrics
from rlgen_cli.core.stages import Stage
from rlgen_cli.data.damage import Damage, hint_of
from rlgen_cli.data.images import Images
from rlgen_cli.generators.paths import change_kept
from rlgen_cli.generators.unet import words_of
from rlgen_cli.policies.precision import Precision


@runtime_checkable
class HasFiles(Protocol):
    """A network with a form of its own in which a model of it is kept."""

    def check(self, path: NoisePath) -> None:
        """Refuse a path that the form has no place for."""
        ...

    def files(self, path: NoisePath, conditional: bool) -> dict[str, bytes]:
        """The files, by their names in a folder; `conditional`: the model was trained with labels."""
        ...


class DiffusionModel(nn.Module):
    """A network that estimates a sample from a noisy one; a `core.protocols.Denoises`, and a `Generator` whose latents
    are the noise that an ordinary differential equation turns into a sample.

    Args:
        network: predicts as `path` says; the exponential moving average of the trained one.
        path: from samples, whose numbers are in [−1, 1], to noise.
        shape: C, H, W of a sample. hints: planes that the network sees beside it.
        labels: that the data have, 0 for none. classes: that the model was trained with: `labels`, or 0.
        ode_steps: of the differential equation, a pass each.
    """

    differentiable = True
    direction_names: tuple[str, ...] = ()
    coordinates = 0

    def __init__(
        self, *, network: nn.Module, path: NoisePath, shape: tuple[int, int, int], hints: int, labels: int,
        classes: int, ode_steps: int,
    ) -> None:  # fmt: skip
        super().__init__()
        net: Any = network.requires_grad_(False).eval()
        self.network, self.path, self.shape, self.hints = net, path, shape, hints
        self.labels, self.classes, self.ode_steps = labels, classes, ode_steps
        self.latent = math.prod(shape)

    def denoising_network(self) -> Any:
        """What predicts, and its features."""
        return self.network

    def estimate(self, x: Tensor, t: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        """The sample [N, C, H, W], in [−1, 1] but for errors, that noisy ones x at times t [N] come from; `label`
        float [N, labels], a one among zeros, or None; `hint` [N, hints, H, W], or None where there are none."""
        known = label if self.classes else None
        seen = x if hint is None else torch.cat([x, hint], 1)
        return self.path.estimate(x, self.network(seen, t, known)[0], t.view(-1, 1, 1, 1))

    def forward(self, z: Tensor, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Raw samples [N, C, H, W] of noise z [N, latent] and labels int64 [N]."""
        known = one_hot(label, self.labels).to(z.dtype) if label is not None and self.classes else None
        return self.solve(z.unflatten(1, self.shape), torch.linspace(1, 0, self.ode_steps + 1, device=z.device), known)

    def solve(self, x: Tensor, times: Tensor, label: Tensor | None, hint: Tensor | None = None) -> Tensor:
        """Samples that the ordinary differential equation takes noisy ones x to, from the first of the times [K + 1] to
        the last; `label` and `hint` as in `estimate`. Each step keeps the noise that is seen at its start (DDIM, Song
        et al. 2021, η = 0), and is of second order (DPM-Solver++(2M), Lu et al. 2022)."""
        before, shares = None, change_kept(self.path, times)
        for share, (t, s) in zip(shares, itertools.pairwise(times), strict=True):
            estimate = self.estimate(x, t.expand(len(x)), label, hint)
            aim = estimate if before is None else estimate + share * (estimate - before)
            kept = self.path.sigma(s) / self.path.sigma(t)
            x = kept * x + (self.path.alpha(s) - kept * self.path.alpha(t)) * aim
            before = estimate
        return x

    @staticmethod
    def finished(raw: Tensor) -> Tensor:
        """Pictures in [0, 1]."""
        return ((raw + 1) / 2).clamp(0, 1)

    def directions(self, name: str) -> Tensor:
        raise UserError("basis: a diffusion model's latents have no directions of their own; use random.")


class DiffusionTraining:
    """Fits a diffusion model to pictures before a run; a `TrainsGenerator`.

    Args:
        real: the pictures. rng: the run's random stream for generators. device: where everything lies.
        cache_key: what a trained model depends on, beside precision: the number format of the network's passes.
        seed: of the first weights and of the training, so that runs of several seeds have one model; None: as `rng` is.
        damage: what is done to the pictures that the model sees beside the noisy ones, and is to restore; None where
            it sees none.
        network: builds the network (unet.py, diffusers_unet.py) from sample, hints, classes and words.
        path: from samples to noise, and what is predicted (paths.py).
        conditional: the model knows labels. label_dropout: share of a batch that is without, so that it also knows
            what pictures without a label look like, which guidance needs.
        label_encoding: what the network knows of a label: its place among the data's classes (index), or the words of
            its name, each at its place (words), so that names without a picture in the training mean something, too.
        learning_rate: Adam's, a schedule. batch_size: pictures an update, of all ranks. updates: until it is trained.
        ema_decay: of the exponential moving average of the weights, which makes the samples; it begins faster.
        ode_steps: see DiffusionModel.

    Raises:
        UserError: for a value out of range, or labels asked of data without any.
    """

    def __init__(
        self,
        *,
        real: Images,
        rng: torch.Generator,
        device: torch.device,
        cache_key: str,
        precision: Precision,
        damage: Damage | None,
        seed: int | None,
        network: Callable[..., nn.Module],
        path: NoisePath,
        conditional: bool,
        label_dropout: float,
        label_encoding: Literal["index", "words"],
        learning_rate: Linear,
        batch_size: int,
        updates: int,
        ema_decay: float,
        ode_steps: int,
    ) -> None:
        require(isinstance(real, Images), "_target_: a diffusion model makes pictures; use generator=melody here.")
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require_memory(4 * batch_size * math.prod(real.images.shape[1:]), f"batch_size: {batch_size} samples")
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        require(0.0 <= ema_decay < 1.0, f"ema_decay: must be in [0, 1), got {ema_decay}.")
        require(0.0 <= label_dropout < 1.0, f"label_dropout: must be in [0, 1), got {label_dropout}.")
        require(1 <= ode_steps <= 1000, f"ode_steps: must be from 1 to 1000, got {ode_steps}.")
        require(not conditional or bool(real.classes), "conditional: needs data with labels; this data has none.")
        named = label_encoding == "index" or bool(real.classes)
        require(named, "label_encoding: words needs data with labels, whose names it reads; this data has none.")
        require_rate(learning_rate)
        require(seed is None or seed >= 0, f"seed: must be at least 0, or null for the run's, got {seed}.")
        if seed is not None:
            rng.set_state(stream(seed, of_rank("generator"), rng.device).get_state())
        self.rng = rng
        self.real, self.device, self.cache_key = real.to(device), device, f"{cache_key} {precision.name}"
        self.precision, self.damage = precision, damage
        self.path, self.label_dropout, self.learning_rate = path, float(label_dropout), learning_rate
        self.batch_size, self.num_updates = ranks.share(batch_size, "batch_size"), updates
        self.ema_decay, self.updates_done = float(ema_decay), 0
        channels, high, wide = real.images.shape[1:]
        shape, labels = (channels, high, wide), len(real.classes)
        words = words_of(real.classes) if label_encoding == "words" else None
        hints = channels + 1 if damage is not None else 0
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.network: Any = network(sample=shape, hints=hints, classes=labels, words=words).to(device)
        if isinstance(self.network, HasFiles):
            self.network.check(path)  # now, and not after the training
        self.generator = DiffusionModel(
            network=copy.deepcopy(self.network), path=path, shape=shape, hints=hints, labels=labels,
            classes=labels if conditional else 0, ode_steps=ode_steps,
        ).to(device)  # fmt: skip
        self.optimizer = PlainAdam(self.network.parameters(), learning_rate(0.0))

    def stage(self) -> Stage:
        """The training that comes before the run."""
        return Stage(
            name="generator",
            trainable=self,
            updates=self.num_updates,
            interval=max(1, self.num_updates // 20),
            key=self.cache_key,
            finish=lambda: None,
            streams=("generator",),
        )

    def export(self, folder: Path) -> None:
        """Weights, and a config that says what they are of; of a network that has its own files, these."""
        made = self.generator
        write_model(folder, made.network, made.path, made.shape, made.labels, bool(made.classes))

    def update(self, progress: float) -> Metrics:
        """One step of Adam on the mean squared error of what is predicted."""
        images, label = self._draw()
        x0, n = images.float() / 127.5 - 1, len(images)
        place = torch.rand(n, generator=self.rng, device=self.device)
        t = (torch.arange(n, device=self.device) + place) / n  # [B], one from each part
        noise = torch.randn(x0.shape, generator=self.rng, device=self.device)
        beside = t.view(-1, 1, 1, 1)
        x = self.path.alpha(beside) * x0 + self.path.sigma(beside) * noise
        with self.precision.autocast(self.device.type, self.network.kind):
            prediction = self.network(self._with_hint(x, images), t, label)[0].float()
        loss = (prediction - self.path.target(x0, noise, beside)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        ranks.average_gradients(list(self.network.parameters()))
        self.optimizer.learning_rate = self.learning_rate(progress)
        self.optimizer.step()
        follow(self.generator.network, self.network, self.ema_decay, self.updates_done)
        self.updates_done += 1
        return {"loss": loss.detach()}

    def _draw(self) -> tuple[Tensor, Tensor | None]:
        """Pictures uint8 [B, C, H, W], and what is known of their labels, [B, labels]."""
        count = self.real.images.shape[0]
        index = torch.randint(count, (self.batch_size,), generator=self.rng, device=self.device)
        images = self.real.images[index]
        if not self.generator.classes:
            return images, None
        kept = torch.rand(self.batch_size, 1, generator=self.rng, device=self.device) >= self.label_dropout
        return images, one_hot(self.real.labels[index], self.generator.labels) * kept.float()

    def _with_hint(self, x: Tensor, images: Tensor) -> Tensor:
        """Noisy pictures x, beside what damage leaves of the clean ones, uint8 [B, C, H, W], where there is any."""
        return x if self.damage is None else torch.cat([x, hint_of(*self.damage(images, self.rng))], 1)

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates_done": self.updates_done,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.generator.load_state_dict(state["generator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates_done = state["updates_done"]


def write_model(
    folder: Path, network: nn.Module, path: NoisePath, shape: tuple[int, int, int], labels: int, conditional: bool
) -> None:
    """Write a network's weights into a folder, and a config that says what they are of; of a network that has its own
    files, these. `labels`: that the data have; `conditional`: the network knows them.

    Raises:
        UserError: for a path that its own files have no place for.
    """
    if isinstance(network, HasFiles):
        files = network.files(path, conditional)
    else:
        config = {"class": type(network).__name__, "shape": list(shape), "labels": labels}
        weights = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
        files = {"config.json": json.dumps(config, indent=1).encode(), "model.safetensors": save_tensors(weights)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, content)
