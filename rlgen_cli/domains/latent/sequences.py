"""Steering a generator of sequences: an episode moves a point in its latent space, or in the space of its channels'
gains and biases, and the sample is the token sequence that it makes there.

When to use it: as env=latent_gan, for melodies, chorales and text. For a sequence that obeys rules, env=music, which
chooses each token by itself, is the surer way.

What to expect: melodies close to those of the data in scale, groove and pitch entropy, before and after joint
training (docs/latent.md has the numbers).
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.protocols import Encoding, Generator
from rlgen_cli.core.specs import EnvSpec, Observation, SequenceSpec, TensorSpec, View, vector
from rlgen_cli.core.time_encoding import TimeEncoding, encoded_time, time_spec
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.latent.steering import Steering, start_latents


class LatentSequenceState(NamedTuple):
    """N episodes."""

    point: Tensor  # float [N, D], what is moved
    start_latent: Tensor  # float [N, latent], z at the start, and all the time where parameters are moved
    tokens: Tensor  # int16 [N, T, 1], what the generator makes there
    step: Tensor  # int16 [N]


class LatentSequences:
    """A generator of sequences and its latents.

    Args:
        data: what the generator was trained on.
        device: of all tensors.
        generator: what is steered.
        steering: what an action does to the point.
        encoding: what a token means.
        length: tokens a sequence.
        bar: grid steps a bar.
        tempo: beats a minute, when it is played.
        max_steps: actions an episode.
        start: z is drawn from the prior, or is its mean 0.
        time_encoding: how the policy sees the time: fraction (of steps left) or one_hot (an input for each step).

    Raises:
        UserError: for a value out of range, or a combination that the generator rules out.
    """

    def __init__(
        self,
        *,
        data: Splits,
        device: torch.device,
        generator: Generator,
        steering: Steering,
        encoding: Encoding,
        length: int,
        bar: int,
        tempo: float,
        max_steps: int,
        start: Literal["prior", "mean"],
        time_encoding: TimeEncoding,
    ) -> None:
        require(20 <= tempo <= 400, f"tempo: must be from 20 to 400 beats a minute, got {tempo}.")
        require(1 <= max_steps <= 10_000, f"max_steps: must be from 1 to 10000, got {max_steps}.")
        sizes = encoding.vocabulary
        require(
            generator.shape == (1, sizes[0], length),
            f"generator: makes {list(generator.shape)}, not columns of {sizes[0]} values for {length} tokens; "
            "use generator=melody.",
        )
        self.data, self.device, self.encoding = data, device, encoding
        self.generator, self.steering = generator, steering
        self.length, self.bar, self.tempo, self.max_steps, self.start = length, bar, float(tempo), max_steps, start
        self.time_encoding = time_encoding
        space, limit, latent = self.steering.space, self.steering.limit, vector(generator.latent)
        self.spec = EnvSpec(
            observation={
                "tokens": TensorSpec("tokens", (length, 1), vocabulary=sizes),
                "time": time_spec(time_encoding, max_steps),
                space.name: vector(space.dim, -limit, limit),
            },
            action=self.steering.action,
            sample=SequenceSpec(length, sizes, encoding, bar),
            max_steps=max_steps,
            context={"prime": TensorSpec("tokens", (1,), vocabulary=sizes), "start_latent": latent},
            info={"num_tokens": TensorSpec("label", (), 0, length + 1), "latent": latent},
            kinds=encoding.kinds | {"latent"},
        )

    @staticmethod
    def request(encoding: Encoding, length: int, bar: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(2 <= length <= 4096, f"length: must be from 2 to 4096 tokens, got {length}.")
        require(1 <= bar <= 64, f"bar: must be from 1 to 64 sixteenths, got {bar}.")
        require(
            length % encoding.voices == 0,
            f"length: must be a multiple of {encoding.voices} with this encoding, got {length}.",
        )
        return {"encoding": encoding, "length": length, "bar": bar}

    def reset(self, n: int, rng: torch.Generator) -> LatentSequenceState:
        z = start_latents(n, self.generator.latent, self.start, self.steering.limit, rng, self.device)
        point = self.steering.space.start(z)
        step = torch.zeros(n, dtype=torch.int16, device=self.device)
        return LatentSequenceState(point, z, self._tokens(z, point), step)

    def _tokens(self, z: Tensor, point: Tensor) -> Tensor:
        """What the generator makes of the points, int16 [N, T, 1]."""
        return self.generator.finished(self.steering.space.make(z, point, None)).to(torch.int16)

    def step(self, state: LatentSequenceState, action: Tensor) -> LatentSequenceState:
        over = self.done(state)
        point = torch.where(over.unsqueeze(1), state.point, self.steering.move(state.point, action, state.step))
        tokens = torch.where(over.view(-1, 1, 1), state.tokens, self._tokens(state.start_latent, point))
        return state._replace(point=point, tokens=tokens, step=state.step + ~over)

    def done(self, state: LatentSequenceState) -> Tensor:
        return state.step >= self.max_steps

    def observe(self, state: LatentSequenceState) -> Observation:
        left = encoded_time(state.step, self.max_steps, self.time_encoding)
        return {"tokens": state.tokens.long(), "time": left, self.steering.space.name: state.point}

    def view(self, state: LatentSequenceState) -> View:
        tokens = state.tokens.long()
        context = {"prime": torch.full_like(tokens[:, 0], -1), "start_latent": state.start_latent}
        latent = self.steering.space.latent(state.start_latent, state.point)
        return View(tokens, context, {"num_tokens": torch.full_like(tokens[:, 0, 0], self.length), "latent": latent})

    def action_mask(self, state: LatentSequenceState) -> Tensor | None:
        return None
