"""Steering a generator: an episode moves a point in its latent space, or in the space of its channels' gains and
biases, and the sample is what the generator makes of it."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.data.images import Splits
from rlgen_cli.domains.latent.damage import Damage
from rlgen_cli.domains.latent.steering import Steering
from rlgen_cli.domains.canvas.brushes import round_through
from rlgen_cli.core.errors import require
from rlgen_cli.core.types import Context, Discrete, EnvSpec, Observation, ObservationSpec, View


class LatentState(NamedTuple):
    """N episodes; the data's pictures are in the environment, by index."""

    point: Tensor  # float [N, D], what is moved
    image: Tensor  # uint8 [N, C, H, W], what the generator makes of them
    given: Tensor  # uint8 [N, C, H, W], the damaged picture; [N, 0, H, W] without damage
    known: Tensor  # bool [N, 1, H, W]; [N, 0, H, W] without damage
    origin: Tensor  # float [N, latent], z at the start, and all the time where parameters are moved
    picture: Tensor  # int32 [N], the data's
    step: Tensor  # int16 [N]


class LatentGan:
    """A generator and its latents.

    Args:
        gan: the generator (gan/). space: latent, or parameters (a generator for each sample, all in one pass).
        action, basis, directions, stride, limit, start: see steering.Steering.
        damage: what is wrong with the data's picture, which then is to be repaired, or null.
        condition: as in the pixel environment.

    Raises:
        UserError: for a value out of range, or a combination that the generator rules out.
    """

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        gan: Any,
        device: torch.device,
        size: int,
        channels: int,
        space: Literal["latent", "parameters"],
        action: Literal["step", "move", "place"],
        basis: Literal["axes", "random", "principal", "learned"],
        directions: int,
        stride: float,
        limit: float,
        max_steps: int,
        start: Literal["prior", "mean"],
        damage: Damage | None,
        condition: Literal["none", "target", "label", "both"],
    ) -> None:
        self.request(size, channels)
        planes, side, wide = gan.shape
        require(
            gan.shape == (channels, size, size),
            f"size: the generator makes {side} × {wide} pictures with {planes} channels, and {size} × {size} with "
            f"{channels} are asked for; use env.size={side} env.channels={planes}.",
        )
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        chosen = getattr(data, split).to(device)
        self.images, self.labels, self.classes = chosen.images, chosen.labels, len(chosen.classes)
        labelled = condition in ("label", "both")
        require(not labelled or self.classes > 0, f"condition: {condition} needs data with labels; this data has none.")
        require(not gan.classes or labelled, "condition: a conditional generator needs labels; use label or both.")
        self.steering = Steering(
            gan=gan, space=space, action=action, basis=basis, directions=directions, stride=stride, limit=limit,
            start=start, device=device,
        )  # fmt: skip
        self.gan, self.device, self.damage = gan, device, damage
        self.size, self.channels, self.max_steps = size, channels, max_steps
        self.sees_target = condition in ("target", "both") and damage is None
        self.knows_target, self.sees_label = condition in ("target", "both") or damage is not None, labelled
        self.spec = self._spec()

    @staticmethod
    def request(size: int, channels: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(8 <= size <= 64 and size % 2 == 0, f"size: must be even, from 8 to 64, got {size}.")
        require(channels in (1, 3), f"channels: must be 1 (grey) or 3 (RGB), got {channels}.")
        return {"size": size, "channels": channels}

    def _spec(self) -> EnvSpec:
        beside = self.channels * self.sees_target + (self.channels + 1) * (self.damage is not None)
        observation = ObservationSpec(
            image=(self.channels + beside, self.size, self.size),
            patch=(0, 0, 0),
            vector=1 + self.steering.dim + self.classes * self.sees_label,
            pictures=1 + (beside > 0),
        )
        context = ["origin"] + ["target"] * self.knows_target + ["label"] * self.sees_label
        context += ["given", "known"] * (self.damage is not None)
        return EnvSpec(
            observation,
            self.steering.spec,
            (self.channels, self.size, self.size),
            self.max_steps,
            frozenset(context),
            self.classes * self.sees_label,
            differentiable=self.gan.differentiable and not isinstance(self.steering.spec, Discrete),
            kinds=frozenset(["picture", "latent"]),
        )

    def reset(self, n: int, rng: torch.Generator) -> LatentState:
        index = torch.randint(len(self.images), (n,), generator=rng, device=self.device)
        return self.begin(index, rng)

    def begin(self, index: Tensor, rng: torch.Generator) -> LatentState:
        """Fresh episodes whose data pictures are `index` [N]."""
        z, point = self.steering.begin(len(index), rng)
        truth = self.images[index]
        given, known = self.damage(truth, rng) if self.damage is not None else (truth[:, :0], truth[:, :0].bool())
        step = torch.zeros(len(index), dtype=torch.int16, device=self.device)
        state = LatentState(point, truth, given, known, z, index.to(torch.int32), step)
        return state._replace(image=self._make(point, state).round().to(torch.uint8))

    def _make(self, point: Tensor, state: LatentState) -> Tensor:
        """What the generator makes of the point, float [N, C, H, W] from 0 to 255."""
        label = self.labels[state.picture] if self.sees_label else None
        return 255 * self.steering.make(state.origin, point, label)

    def step(self, state: LatentState, action: Tensor) -> LatentState:
        over = self.done(state)
        point = torch.where(over.unsqueeze(1), state.point, self.steering.move(state.point, action))
        image = self._make(point, state)
        soft = state.image.is_floating_point()  # see `soften`
        image = round_through(image) if soft else image.round().to(torch.uint8)
        return state._replace(
            point=point, image=torch.where(over.view(-1, 1, 1, 1), state.image, image), step=state.step + ~over
        )

    def soften(self, state: LatentState) -> LatentState:
        """The same states with pictures as float, through which `step` lets gradients to the action."""
        return state._replace(image=state.image.float())

    def done(self, state: LatentState) -> Tensor:
        return state.step >= self.max_steps

    def observe(self, state: LatentState) -> Observation:
        planes = [state.image.float() / 255]
        if self.sees_target:
            planes.append(self.images[state.picture].float() / 255)
        if self.damage is not None:
            planes += [state.given.float() / 255, state.known.float()]
        left = 1 - state.step.unsqueeze(1) / self.max_steps
        vector = [left, state.point]
        if self.sees_label:
            vector.append(torch.nn.functional.one_hot(self.labels[state.picture], self.classes).float())
        image = torch.cat(planes, 1)
        return Observation(
            image, image.new_zeros(len(image), 0, 0, 0), torch.cat(vector, 1), image.new_zeros(len(image), 0)
        )

    def view(self, state: LatentState) -> View:
        context = Context(
            target=self.images[state.picture].float() / 255 if self.knows_target else None,
            label=self.labels[state.picture] if self.sees_label else None,
            given=state.given.float() / 255 if self.damage is not None else None,
            known=state.known if self.damage is not None else None,
            origin=state.origin,
        )
        latent = self.steering.latent(state.origin, state.point)
        return View(state.image.float() / 255, context, state.step.long(), latent)

    def action_mask(self, state: LatentState) -> Tensor | None:
        return None
