"""Denoising a picture: an episode begins with noise, and each action is the noise of a step of a diffusion or flow
model's sampler, or chooses what a step does (`control`).

A standard normal action makes the step that the model itself would make, so that agent=random samples from the model,
a policy's mean is what it changes, and its KL divergence from the model is known exactly. The picture that rewards see
is the model's estimate of what will come of the noisy one; at the end it is the sample.

When to use it: where a model of pictures is there, or can be trained, and its samples are to have something asked for,
without becoming all alike.

What to expect: the model's own samples at the start; with `agent.anchor.prior=env` a price on the KL divergence from
it decides how much of their diversity stays (docs/results/diffusion_three.md).
"""

import copy
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from rlgen_cli.core.errors import require
from rlgen_cli.core.host import readable
from rlgen_cli.core.protocols import Denoises
from rlgen_cli.core.specs import (
    Context,
    EnvSpec,
    Normal,
    Observation,
    ObservationSpec,
    OnTheWay,
    PictureSpec,
    TensorSpec,
    View,
    vector,
)
from rlgen_cli.data.damage import Damage, hint_of
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.diffusion.controls import AddsNoise, Control, Guides, Stops
from rlgen_cli.domains.diffusion.samplers import ODE, Coefficients, Sampler, coefficients, step_times


class DiffusionState(NamedTuple):
    """N episodes; the data's pictures are in the environment, by index."""

    noisy: Tensor  # float [N, C, H, W], x_t
    estimate: Tensor  # float [N, C, H, W], the sample that the model sees in it, in [−1, 1] but for errors
    before: Tensor  # float [N, C, H, W], the estimate a step earlier
    damaged: Tensor  # uint8 [N, C, H, W]; [N, 0, H, W] without damage
    known_mask: Tensor  # bool [N, 1, H, W]; [N, 0, H, W] without damage
    index: Tensor  # type: ignore[assignment]  # int32 [N]: the data picture of this episode
    step: Tensor  # int16 [N]
    stopped: Tensor  # bool [N], before the last step


class Diffusion:
    """The sampling of a diffusion or flow model, step by step.

    Args:
        data, split: the pictures that give labels and targets.
        device: of all tensors.
        generator: the model.
        sampler: what noise a step adds. control: what an action chooses in it.
        size: side of the square pictures, a multiple of 4, from 8 to 64.
        channels: 1 (grey) or 3 (RGB).
        max_steps: of the sampler, in training.
        eval_max_steps: the same for held-out data and samples, or null for as many.
        spacing: of the steps, even in time or in log(α / σ) of signal and noise (log_snr).
        order: 1, or 2 to go on with the change of the estimate, which takes fewer steps for the same error.
        last_time: in (0, 1), where the last step ends.
        solver_steps: in which the model by itself, without noise, makes a sample of what there is then; 0: its estimate
            is the sample.
        damage: what is wrong with the data's picture, of which model and policy then see what is left, and which is
            to be restored; or null.
        condition: what of the data's picture the policy sees: none, target, label, or both.

    Raises:
        UserError: for a value out of range, or a model that is none of diffusion.
    """

    generator_sees_damage = True  # the model is trained to restore what `damage` leaves

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        device: torch.device,
        generator: Any,
        sampler: Sampler,
        control: Control,
        size: int,
        channels: int,
        max_steps: int,
        eval_max_steps: int | None,
        spacing: Literal["time", "log_snr"],
        order: Literal[1, 2],
        last_time: float,
        solver_steps: int,
        damage: Damage | None,
        condition: Literal["none", "target", "label", "both"],
    ) -> None:
        self.request(size, channels)
        require(isinstance(generator, Denoises), "generator: must be a diffusion model here; use generator=flow.")
        steps = max_steps if split == "train" or eval_max_steps is None else eval_max_steps
        name = "max_steps" if split == "train" else "eval_max_steps"
        require(1 <= steps <= 1000, f"{name}: must be from 1 to 1000, got {steps}.")
        require(0.0 < last_time < 1.0, f"last_time: must be between 0 and 1, got {last_time}.")
        require(0 <= solver_steps <= 1000, f"solver_steps: must be from 0 to 1000, got {solver_steps}.")
        chosen = {"train": data.train, "valid": data.valid, "test": data.test}[split].to(device)
        self.images, self.labels, self.class_names = chosen.images, chosen.labels, chosen.classes
        self.sees_label, self.damage = condition in ("label", "both"), damage
        # What is to be restored is not given away.
        self.sees_target = condition in ("target", "both") and damage is None
        self.knows_target = condition in ("target", "both") or damage is not None
        labelled = bool(chosen.classes)
        require(not self.sees_label or labelled, f"condition: {condition} needs data with labels; this data has none.")
        known = not generator.classes or self.sees_label
        require(known, "condition: a conditional generator needs labels; use label or both.")
        known = damage is None or generator.hints > 0
        require(known, "damage: this model was not trained to see a damaged picture; use generator=flow.")
        self.generator: Denoises = generator
        self.order = order
        self.device, self.max_steps, self.shape = device, steps, generator.shape
        self.times = step_times(generator.path, steps, last_time, spacing, device)
        self.solver_times = torch.linspace(last_time, 0, solver_steps + 1, device=device)
        sampler = sampler if isinstance(control, AddsNoise) else ODE()
        self.coefficients = coefficients(sampler, generator.path, self.times, order)
        self.control, self.action = control, control.enter(self.shape, steps, device)
        needs = "control: guidance needs env.generator.conditional=true."
        require(not isinstance(control, Guides) or generator.classes > 0, needs)
        self.spec = self._spec()

    @staticmethod
    def request(size: int, channels: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(8 <= size <= 64 and size % 4 == 0, f"size: must be a multiple of 4, from 8 to 64, got {size}.")
        require(channels in (1, 3), f"channels: must be 1 (grey) or 3 (RGB), got {channels}.")
        return {"size": size, "channels": channels}

    def _spec(self) -> EnvSpec:
        picture, classes = TensorSpec("image", self.shape, 0.0, 1.0), len(self.class_names)
        context = {"target": picture} if self.knows_target else {}
        if self.sees_label:
            context["label"] = TensorSpec("label", (), 0, classes)
        if self.damage is not None:
            context |= {"damaged": picture, "known_mask": TensorSpec("mask", (1, *self.shape[1:]))}
        return EnvSpec(
            observation=self._observation_spec(),
            action=self.action,
            sample=PictureSpec(*self.shape),
            max_steps=self.max_steps,
            context=context,
            info={"num_steps": TensorSpec("label", (), 0, self.max_steps + 1)},
            fixed_length=not isinstance(self.control, Stops),
            class_names=self.class_names if self.sees_label else (),
            differentiable=isinstance(self.action, Normal),
            kinds=frozenset(["picture"]),
        )

    def _observation_spec(self) -> ObservationSpec:
        planes = TensorSpec("image", self.shape)
        spec = {"noisy": planes, "estimate": planes, "time": vector(1, 0.0, 1.0)}
        if isinstance(self.action, Normal):
            spec["log_gain"] = vector(1)
        if self.order == 2:
            spec |= {"before": planes, "change": vector(1)}
        if self.sees_target:
            spec["target"] = planes
        if self.damage is not None:
            spec["hint"] = TensorSpec("image", (self.generator.hints, *self.shape[1:]), -1.0, 1.0)
        if self.sees_label:
            spec["label"] = vector(len(self.class_names), 0.0, 1.0)
        return spec

    def reset(self, n: int, rng: torch.Generator) -> DiffusionState:
        return self.start_from(torch.randint(len(self.images), (n,), generator=rng, device=self.device), rng)

    def start_from(self, index: Tensor, rng: torch.Generator) -> DiffusionState:
        """Fresh episodes whose data pictures are `index` [N]."""
        n = len(index)
        noisy = torch.randn(n, *self.shape, generator=rng, device=self.device)
        step = torch.zeros(n, dtype=torch.int16, device=self.device)
        truth = self.images[index]
        damaged, known = self.damage(truth, rng) if self.damage is not None else (truth[:, :0], truth[:, :0].bool())
        stopped = torch.zeros(n, dtype=torch.bool, device=self.device)
        state = DiffusionState(noisy, noisy, noisy, damaged, known, index.to(torch.int32), step, stopped)
        estimate = self._estimate(state)
        return state._replace(estimate=estimate, before=estimate)

    def with_picture(self, picture: Tensor) -> Self:
        """The same environment for pictures, uint8 [M, C, H, W], in the place of the data."""
        other = copy.copy(self)
        other.images, other.labels = picture, self.labels[:1].expand(len(picture))
        return other

    def _estimate(self, state: DiffusionState) -> Tensor:
        """The sample that the model sees in the noisy one, [N, C, H, W]."""
        return self.generator.estimate(state.noisy, self._time(state), self._known_label(state), self._hint(state))

    def _hint(self, state: DiffusionState) -> Tensor | None:
        """What model and policy see of the damaged picture, [N, C + 1, H, W], or None."""
        return None if self.damage is None else hint_of(state.damaged, state.known_mask)

    def _known_label(self, state: DiffusionState) -> Tensor | None:
        """What the model is told, float [N, classes], or None."""
        return self._one_hot(state) if self.generator.classes else None

    def _time(self, state: DiffusionState) -> Tensor:
        """[N]."""
        return self.times[state.step.long()]

    def _one_hot(self, state: DiffusionState) -> Tensor:
        """The asked labels, float [N, classes]."""
        return one_hot(self.labels[state.index], len(self.class_names)).float()

    def step(self, state: DiffusionState, action: Tensor) -> DiffusionState:
        over, stop = self.done(state), self._stops(state, action)
        made = ~(over | stop)
        noisy = self._mean(state, self._guided(state, action))
        if isinstance(self.control, AddsNoise):
            noisy = noisy + self._coefficients(state).std * self.control.noise(action, self._place(state))
        after = state._replace(noisy=noisy, before=state.estimate, step=state.step + made)
        after = after._replace(estimate=self._estimate(after))
        goes = made.view(-1, 1, 1, 1)
        noisy, estimate, before = (torch.where(goes, new, old) for old, new in zip(state[:3], after[:3], strict=True))
        after = after._replace(noisy=noisy, estimate=estimate, before=before, stopped=state.stopped | (stop & ~over))
        ends = self.done(after) & made
        if len(self.solver_times) == 1 or (readable(ends) and not bool(ends.any())):
            return after
        solved = self.generator.solve(after.noisy, self.solver_times, self._known_label(after), self._hint(after))
        return after._replace(estimate=torch.where(ends.view(-1, 1, 1, 1), solved, after.estimate))

    def _stops(self, state: DiffusionState, action: Tensor) -> Tensor:
        """Whether no step is made any more, bool [N]."""
        return self.control.stop(action) if isinstance(self.control, Stops) else torch.zeros_like(state.stopped)

    def _guided(self, state: DiffusionState, action: Tensor) -> Tensor:
        """The estimate with the label as strong as the action has it, [N, C, H, W]."""
        if not isinstance(self.control, Guides):
            return state.estimate
        none = torch.zeros(len(action), self.generator.classes, device=self.device)
        without = self.generator.estimate(state.noisy, self._time(state), none, self._hint(state))
        return without + self.control.scale(action) * (state.estimate - without)

    def _mean(self, state: DiffusionState, estimate: Tensor) -> Tensor:
        """Where a step with this estimate leads to, but for noise, [N, C, H, W]."""
        kept, gain, _, change = self._coefficients(state)
        return kept * state.noisy + gain * (estimate + change * (state.estimate - state.before))

    def action_between(self, state: DiffusionState, following: DiffusionState) -> Tensor:
        mean, std = self._mean(state, state.estimate), self._coefficients(state).std
        return ((following.noisy - mean) / std).flatten(1)

    def _place(self, state: DiffusionState) -> Tensor:
        """Which step comes, int64 [N]; of a finished one, the last."""
        return state.step.long().clamp(max=self.max_steps - 1)

    def _coefficients(self, state: DiffusionState) -> Coefficients:
        """Those of each state's step, [N, 1, 1, 1] each."""
        place = self._place(state)
        return Coefficients(*(part[place].view(-1, 1, 1, 1) for part in self.coefficients))

    def on_the_way(self, final: DiffusionState, rng: torch.Generator) -> OnTheWay:
        """States with the finished samples under fresh noise. The weight makes an error that of what the model predicts
        on a straight way."""
        n, x0 = len(final.noisy), final.estimate
        step = torch.randint(self.max_steps, (n,), generator=rng, device=self.device)
        noise = torch.randn(x0.shape, generator=rng, device=self.device)
        t = self.times[step].view(-1, 1, 1, 1)
        noisy = self.generator.path.alpha(t) * x0 + self.generator.path.sigma(t) * noise
        state = final._replace(noisy=noisy, step=step.to(final.step.dtype))
        estimate = self._estimate(state)
        state = state._replace(estimate=estimate, before=estimate)
        error = (self._gain(state) * self.generator.path.sigma(t).flatten()).square()
        return OnTheWay(state, self._action_to(state, x0.flatten(1)), error.reciprocal())

    def action_towards(self, state: DiffusionState, finals: DiffusionState) -> Tensor:
        t, x0 = self._time(state).unsqueeze(1), finals.estimate.flatten(1)  # [N, 1], [M, D]
        alpha, sigma = self.generator.path.alpha(t), self.generator.path.sigma(t)
        # log N(x_t; α x_0, σ²), but for what is the same for all x_0.
        likely = (alpha * (state.noisy.flatten(1) @ x0.T) - 0.5 * alpha.square() * x0.square().sum(1)) / sigma.square()
        return self._action_to(state, likely.softmax(1) @ x0)

    def _action_to(self, state: DiffusionState, x0: Tensor) -> Tensor:
        """The actions [N, D] by which the estimate of a step is x0 [N, D]."""
        return self._gain(state).unsqueeze(1) * (x0 - state.estimate.flatten(1))

    def _gain(self, state: DiffusionState) -> Tensor:
        """How many deviations of a step's noise the next noisy sample moves with the estimate, [N]."""
        coefficients = self._coefficients(state)
        return (coefficients.estimate / coefficients.std).flatten()

    def differentiable_state(self, state: DiffusionState) -> DiffusionState:
        """The same states: they are floats, and `step` lets gradients through as it is."""
        return state

    def done(self, state: DiffusionState) -> Tensor:
        return (state.step >= self.max_steps) | state.stopped

    def observe(self, state: DiffusionState) -> Observation:
        seen = {
            "noisy": state.noisy,
            "estimate": state.estimate,
            "time": self._time(state).unsqueeze(1),
        }
        if isinstance(self.action, Normal):
            seen["log_gain"] = self._gain(state).log().unsqueeze(1)
        if self.order == 2:
            seen |= {"before": state.before, "change": self._coefficients(state).change.flatten(1)}
        if self.sees_target:
            seen["target"] = 2 * self._target(state) - 1
        if self.damage is not None:
            seen["hint"] = hint_of(state.damaged, state.known_mask)
        if self.sees_label:
            seen["label"] = self._one_hot(state)
        return seen

    def _target(self, state: DiffusionState) -> Tensor:
        """The data's pictures, float [N, C, H, W] in [0, 1]."""
        return self.images.index_select(0, state.index).float() / 255

    def view(self, state: DiffusionState) -> View:
        context: Context = {"target": self._target(state)} if self.knows_target else {}
        if self.sees_label:
            context["label"] = self.labels[state.index]
        if self.damage is not None:
            context |= {"damaged": state.damaged.float() / 255, "known_mask": state.known_mask}
        return View(_picture(state.estimate), context, {"num_steps": state.step.long()})

    def action_mask(self, state: DiffusionState) -> Tensor | None:
        return None


def _picture(sample: Tensor) -> Tensor:
    """Numbers in [−1, 1], but for errors, as a picture in [0, 1]; gradients pass as if nothing were cut off."""
    unit = (sample + 1) / 2
    if not unit.requires_grad:
        return unit.clamp(0, 1)
    return unit + (unit.clamp(0, 1) - unit).detach()
