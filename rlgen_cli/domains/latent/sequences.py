"""Steering a composer: an episode moves a point in the space of a generator of sequences, and the sample is the music
that it makes there."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.domains.music.encodings import Encoding
from rlgen_cli.domains.music.environment import Music
from rlgen_cli.domains.latent.steering import Steering
from rlgen_cli.core.errors import require
from rlgen_cli.core.types import Context, EnvSpec, Observation, ObservationSpec, Sequence, View


class MelodyState(NamedTuple):
    """N episodes."""

    point: Tensor  # float [N, D], what is moved
    origin: Tensor  # float [N, latent], z at the start, and all the time where parameters are moved
    tokens: Tensor  # int16 [N, T, 1], what the generator makes of them
    step: Tensor  # int16 [N]


class LatentMusic:
    """A generator of sequences and its latents.

    Args:
        gan: the generator (gan/). space, action, basis, directions, stride, limit, start: see steering.Steering.
        encoding: what a token means (encodings.py), as the data was encoded. length: tokens a piece.
        bar: sixteenths a bar. tempo: beats a minute, when it is played.

    Raises:
        UserError: for a value out of range, or a combination that the generator rules out.
    """

    def __init__(
        self,
        *,
        gan: Any,
        device: torch.device,
        data: Any,
        encoding: Encoding,
        length: int,
        bar: int,
        tempo: float,
        space: Literal["latent", "parameters"],
        action: Literal["step", "move", "place"],
        basis: Literal["axes", "random", "principal", "learned"],
        directions: int,
        stride: float,
        limit: float,
        max_steps: int,
        start: Literal["prior", "mean"],
    ) -> None:
        require(20 <= tempo <= 400, f"tempo: must be from 20 to 400 beats a minute, got {tempo}.")
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        words = encoding.vocabulary[0]
        require(
            gan.shape == (1, words, length),
            f"gan: makes {list(gan.shape)}, not columns of {words} values for {length} tokens; use gan=melody.",
        )
        self.steering = Steering(
            gan=gan, space=space, action=action, basis=basis, directions=directions, stride=stride, limit=limit,
            start=start, device=device,
        )  # fmt: skip
        self.gan, self.device, self.encoding = gan, device, encoding
        self.length, self.bar, self.tempo, self.max_steps = length, bar, float(tempo), max_steps
        self.spec = EnvSpec(
            ObservationSpec((0, 0, 0), (0, 0, 0), 1 + self.steering.dim, history=length, vocabulary=(words,)),
            self.steering.spec,
            Sequence(length, (words,), encoding, bar),
            max_steps,
            frozenset(["prime", "origin"]),
            classes=0,
            kinds=encoding.kinds | {"latent"},
        )

    request = staticmethod(Music.request)

    def reset(self, n: int, rng: torch.Generator) -> MelodyState:
        origin, point = self.steering.begin(n, rng)
        step = torch.zeros(n, dtype=torch.int16, device=self.device)
        return MelodyState(point, origin, self._tokens(origin, point), step)

    def _tokens(self, origin: Tensor, point: Tensor) -> Tensor:
        """What the generator makes of the points, int16 [N, T, 1]."""
        return self.gan.finished(self.steering.make(origin, point, None)).to(torch.int16)

    def step(self, state: MelodyState, action: Tensor) -> MelodyState:
        over = self.done(state)
        point = torch.where(over.unsqueeze(1), state.point, self.steering.move(state.point, action))
        tokens = torch.where(over.view(-1, 1, 1), state.tokens, self._tokens(state.origin, point))
        return state._replace(point=point, tokens=tokens, step=state.step + ~over)

    def done(self, state: MelodyState) -> Tensor:
        return state.step >= self.max_steps

    def observe(self, state: MelodyState) -> Observation:
        none = torch.zeros(len(state.step), 0, device=self.device)
        left = 1 - state.step.unsqueeze(1) / self.max_steps
        empty = none.view(len(none), 0, 0, 0)
        return Observation(empty, empty, torch.cat([left, state.point], 1), none, state.tokens.long())

    def view(self, state: MelodyState) -> View:
        latent = self.steering.latent(state.origin, state.point)
        tokens = state.tokens.long()
        context = Context(prime=torch.full_like(tokens[:, 0], -1), origin=state.origin)
        return View(tokens, context, torch.full_like(tokens[:, 0, 0], self.length), latent)

    def action_mask(self, state: MelodyState) -> Tensor | None:
        return None
