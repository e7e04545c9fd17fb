"""Steering a generator of pictures: an episode moves a point in its latent space, or in the space of its channels'
gains and biases, and the sample is what the generator makes there.

When to use it: where a generator of pictures is there, or can be trained, and its samples are to have something asked
for: a label, a repaired region, a property that only a function can measure.

What to expect: what the generator cannot make, no agent finds. A price on the distance moved keeps samples as
different as the prior made them; without it, agents collapse (docs/results/steer.md). Repairs come within fractions
of a millisecond a picture, where search takes a hundred (docs/results/repair_inpaint.md).
"""

import copy
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Generator
from rlgen_cli.core.specs import (
    Context,
    Discrete,
    EnvSpec,
    Observation,
    ObservationSpec,
    PictureSpec,
    TensorSpec,
    View,
    image,
    vector,
)
from rlgen_cli.core.time_encoding import TimeEncoding, encoded_time, time_spec
from rlgen_cli.data.damage import Damage
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.latent.steering import Steering, start_latents


class LatentPictureState(NamedTuple):
    """N episodes; the data's pictures are in the environment, by index."""

    point: Tensor  # float [N, D], what is moved
    picture: Tensor  # uint8 [N, C, H, W], what the generator makes there (float in a differentiable state)
    damaged: Tensor  # uint8 [N, C, H, W]; [N, 0, H, W] without damage
    known_mask: Tensor  # bool [N, 1, H, W]; [N, 0, H, W] without damage
    start_latent: Tensor  # float [N, latent], z at the start, and all the time where parameters are moved
    index: Tensor  # type: ignore[assignment]  # int32 [N]: the data picture of this episode
    step: Tensor  # int16 [N]


class LatentPictures:
    """A generator of pictures and its latents.

    Args:
        data, split: the pictures that give targets, labels, and what is damaged.
        device: of all tensors.
        generator: what is steered.
        steering: what an action does to the point.
        size: side of the square pictures, even, from 8 to 64.
        channels: 1 (grey) or 3 (RGB).
        max_steps: actions an episode.
        start: z is drawn from the prior, or is its mean 0; auto is mean with damage, else prior.
        damage: what is wrong with the data's picture, which then is to be reconstructed, or null.
        condition: what of the data's picture the policy sees: none, target, label, or both.
        time_encoding: how the policy sees the time: fraction (of steps left) or one_hot (an input for each step).

    Raises:
        UserError: for a value out of range, or a combination that the generator rules out.
    """

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        device: torch.device,
        generator: Generator,
        steering: Steering,
        size: int,
        channels: int,
        max_steps: int,
        start: Literal["auto", "prior", "mean"],
        damage: Damage | None,
        condition: Literal["none", "target", "label", "both"],
        time_encoding: TimeEncoding,
    ) -> None:
        self.request(size, channels)
        planes, high, wide = generator.shape
        require(
            (planes, high, wide) == (channels, size, size),
            f"size: the generator makes {high} × {wide} pictures with {planes} channels, and {size} × {size} with "
            f"{channels} are asked for; use env.size={high} env.channels={planes}.",
        )
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        chosen = {"train": data.train, "valid": data.valid, "test": data.test}[split].to(device)
        self.images, self.labels, self.classes = chosen.images, chosen.labels, len(chosen.classes)
        self.class_names = chosen.classes
        labelled = condition in ("label", "both")
        require(not labelled or self.classes > 0, f"condition: {condition} needs data with labels; this data has none.")
        require(
            not generator.classes or labelled, "condition: a conditional generator needs labels; use label or both."
        )
        self.generator, self.steering = generator, steering
        self.device, self.damage, self.time_encoding = device, damage, time_encoding
        self.size, self.channels, self.max_steps = size, channels, max_steps
        self.start: Literal["prior", "mean"] = start if start != "auto" else "prior" if damage is None else "mean"
        self.sees_target = condition in ("target", "both") and damage is None
        self.knows_target = condition in ("target", "both") or damage is not None
        self.sees_label = labelled
        self.spec = self._spec()

    @staticmethod
    def request(size: int, channels: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(8 <= size <= 64 and size % 2 == 0, f"size: must be even, from 8 to 64, got {size}.")
        require(channels in (1, 3), f"channels: must be 1 (grey) or 3 (RGB), got {channels}.")
        return {"size": size, "channels": channels}

    def _spec(self) -> EnvSpec:
        picture = image(self.channels, self.size, self.size)
        latent = vector(self.generator.latent)
        context = {"start_latent": latent}
        if self.knows_target:
            context["target"] = picture
        if self.sees_label:
            context["label"] = TensorSpec("label", (), 0, self.classes)
        if self.damage is not None:
            context |= {"damaged": picture, "known_mask": TensorSpec("mask", (1, self.size, self.size))}
        return EnvSpec(
            observation=self._observation_spec(),
            action=self.steering.action,
            sample=PictureSpec(self.channels, self.size, self.size),
            max_steps=self.max_steps,
            context=context,
            info={"latent": latent},
            class_names=self.class_names if self.sees_label else (),
            differentiable=self.generator.differentiable and not isinstance(self.steering.action, Discrete),
            kinds=frozenset(["picture", "latent"]),
        )

    def _observation_spec(self) -> ObservationSpec:
        picture = image(self.channels, self.size, self.size)
        spec = {"canvas": picture}
        if self.sees_target:
            spec["target"] = picture
        if self.damage is not None:
            spec |= {"damaged": picture, "known_mask": image(1, self.size, self.size)}
        space, limit = self.steering.space, self.steering.limit
        spec |= {"time": time_spec(self.time_encoding, self.max_steps), space.name: vector(space.dim, -limit, limit)}
        if self.sees_label:
            spec["label"] = vector(self.classes, 0.0, 1.0)
        return spec

    def reset(self, n: int, rng: torch.Generator) -> LatentPictureState:
        index = torch.randint(len(self.images), (n,), generator=rng, device=self.device)
        return self.start_from(index, rng)

    def start_from(self, index: Tensor, rng: torch.Generator) -> LatentPictureState:
        """Fresh episodes whose data pictures are `index` [N]."""
        n, limit = len(index), self.steering.limit
        z = start_latents(n, self.generator.latent, self.start, limit, rng, self.device)
        truth = self.images[index]
        damaged, known = self.damage(truth, rng) if self.damage is not None else (truth[:, :0], truth[:, :0].bool())
        step = torch.zeros(n, dtype=torch.int16, device=self.device)
        state = LatentPictureState(self.steering.space.start(z), truth, damaged, known, z, index.to(torch.int32), step)
        return state._replace(picture=self._make(state.point, state).round().to(torch.uint8))

    def with_picture(self, picture: Tensor) -> Self:
        """The same environment for pictures, uint8 [M, C, H, W], in the place of the data."""
        other = copy.copy(self)
        other.images, other.labels = picture, self.labels[:1].expand(len(picture))
        return other

    def _make(self, point: Tensor, state: LatentPictureState) -> Tensor:
        """What the generator makes of the points, float [N, C, H, W] from 0 to 255."""
        label = self.labels[state.index] if self.sees_label else None
        return 255 * self.generator.finished(self.steering.space.make(state.start_latent, point, label))

    def step(self, state: LatentPictureState, action: Tensor) -> LatentPictureState:
        over = self.done(state)
        point = torch.where(over.unsqueeze(1), state.point, self.steering.move(state.point, action, state.step))
        made = self._make(point, state)
        differentiable = state.picture.is_floating_point()  # see `differentiable_state`
        picture = made + (made.round() - made).detach() if differentiable else made.round().to(torch.uint8)
        picture = torch.where(over.view(-1, 1, 1, 1), state.picture, picture)
        return state._replace(point=point, picture=picture, step=state.step + ~over)

    def differentiable_state(self, state: LatentPictureState) -> LatentPictureState:
        """The same states with pictures as float, still of whole numbers, through which `step` lets gradients to the
        action (straight through the rounding)."""
        return state._replace(picture=state.picture.float())

    def done(self, state: LatentPictureState) -> Tensor:
        return state.step >= self.max_steps

    def observe(self, state: LatentPictureState) -> Observation:
        # A differentiable state's picture is float, of whole numbers too.
        seen = {"canvas": state.picture / 255 if state.picture.is_floating_point() else state.picture}
        if self.sees_target:
            seen["target"] = self.images.index_select(0, state.index)
        if self.damage is not None:
            seen |= {"damaged": state.damaged, "known_mask": state.known_mask.to(torch.uint8) * 255}
        seen["time"] = encoded_time(state.step, self.max_steps, self.time_encoding)
        seen[self.steering.space.name] = state.point
        if self.sees_label:
            seen["label"] = one_hot(self.labels[state.index], self.classes).float()
        return seen

    def view(self, state: LatentPictureState) -> View:
        context: Context = {"start_latent": state.start_latent}
        if self.knows_target:
            context["target"] = self.images.index_select(0, state.index).float() / 255
        if self.sees_label:
            context["label"] = self.labels[state.index]
        if self.damage is not None:
            context |= {"damaged": state.damaged.float() / 255, "known_mask": state.known_mask}
        latent = self.steering.space.latent(state.start_latent, state.point)
        return View(state.picture.float() / 255, context, {"latent": latent})

    def action_mask(self, state: LatentPictureState) -> Tensor | None:
        return None
