"""Sequences, token by token: melodies, notes with dynamics, chorales, or any vocabulary.

When to use it: where rules or a discriminator say what is wanted of a sequence, or a pretrained model of sequences is
to be tuned to a reward and stay near what it was.

What to expect: rules are kept nearly always after minutes (docs/results/rl_tuner.md). A greedy DQN plays few pieces
(docs/results/tunes.md); a prior with a price on leaving it is what keeps them different. Text reads like nonsense
made of words (docs/results/text.md).
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import (
    Discrete,
    EnvSpec,
    Factored,
    Observation,
    SequenceSpec,
    TensorSpec,
    View,
    vector,
)
from rlgen_cli.core.time_encoding import TimeEncoding, encoded_time, time_spec
from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music.encodings import MusicEncoding
from rlgen_cli.domains.music.notes import MAJOR, NAMES

SCALES = {"chromatic": range(12), "major": MAJOR, "minor": (0, 2, 3, 5, 7, 8, 10),
          "pentatonic": (0, 2, 4, 7, 9), "blues": (0, 3, 5, 6, 7, 10)}  # fmt: skip


class CompositionState(NamedTuple):
    """N unfinished sequences."""

    tokens: Tensor  # int16 [N, T, F], −1 where nothing stands yet
    given: Tensor  # int16 [N, T, F], tokens that are set whatever the action; −1 where the action decides
    prime: Tensor  # int16 [N, F], the token before the first; −1 for none
    step: Tensor  # int16 [N]


class Composition:
    """One token a step until there are `length` of them.

    Args:
        data, split: the sequences that give primes and given voices; rewards and pretraining learn from them, too.
        encoding: what a token means (encodings.py), as the data was encoded.
        length: tokens a piece.
        bar: sixteenths a bar. tempo: beats a minute, when it is played.
        key, scale: tokens outside are masked; chromatic allows all.
        prime: the token before the first, which is no part of the piece: none, or a random one.
        given_tokens: tokens at the beginning that come from a data sequence. harmonise: the highest voice comes from
            one, too.
        history: tokens that a network without a memory sees.
        time_encoding: how the policy sees the time: fraction (of tokens left) or one_hot (an input for each step); the
            place in the bar and the voice are observed beside it.

    Raises:
        UserError: for a value out of range, or something that the encoding cannot have.
    """

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        device: torch.device,
        encoding: MusicEncoding,
        length: int,
        bar: int,
        tempo: float,
        key: str,
        scale: Literal["chromatic", "major", "minor", "pentatonic", "blues"],
        prime: Literal["none", "random"],
        given_tokens: int,
        harmonise: bool,
        history: int,
        time_encoding: TimeEncoding,
    ) -> None:
        require(key in NAMES, f"key: must be one of {', '.join(NAMES)}, got {key}.")
        require(20 <= tempo <= 400, f"tempo: must be from 20 to 400 beats a minute, got {tempo}.")
        require(
            0 <= given_tokens <= length, f"given_tokens: must be from 0 to env.length = {length}, got {given_tokens}."
        )
        require(1 <= history <= length, f"history: must be from 1 to env.length = {length}, got {history}.")
        require(not harmonise or encoding.voices > 1, "harmonise: needs several voices; use encoding=chorale.")
        self.data: Tensor = getattr(data, split).tokens.to(device)  # [M, T, F]
        self.encoding, self.device = encoding, device
        self.length, self.bar, self.tempo = length, bar, float(tempo)
        self.prime, self.history, self.time_encoding = prime, history, time_encoding
        pitch_classes = frozenset((NAMES.index(key) + step) % 12 for step in SCALES[scale])
        allowed = encoding.allowed(pitch_classes)  # bool [voices, A], on the CPU
        self.masked = not bool(allowed.all()) or given_tokens > 0 or harmonise
        self.allowed = allowed.to(device)
        positions = torch.arange(length)
        from_data = positions < given_tokens
        if harmonise:
            from_data = from_data | (positions % encoding.voices == 0)
        self.positions, self.from_data = positions.to(device), from_data.unsqueeze(1).to(device)  # [T], [T, 1]
        self.grid = max(encoding.grid, 1)  # sixteenths
        self.bar_positions = -(-bar // self.grid)
        self.spec = self._spec()

    @staticmethod
    def request(encoding: MusicEncoding, length: int, bar: int) -> dict[str, Any]:
        """What data is asked for, checked before any is loaded."""
        require(2 <= length <= 4096, f"length: must be from 2 to 4096 tokens, got {length}.")
        require(1 <= bar <= 64, f"bar: must be from 1 to 64 sixteenths, got {bar}.")
        require(
            length % encoding.voices == 0,
            f"length: must be a multiple of {encoding.voices} with this encoding, got {length}.",
        )
        return {"encoding": encoding, "length": length, "bar": bar}

    def _spec(self) -> EnvSpec:
        sizes, voices = self.encoding.vocabulary, self.encoding.voices
        observation = {
            "tokens": TensorSpec("tokens", (self.history, len(sizes)), vocabulary=sizes),
            "time": time_spec(self.time_encoding, self.length),
            "bar_position": vector(self.bar_positions, 0.0, 1.0),
        }
        return EnvSpec(
            observation=observation | ({"voice": vector(voices, 0.0, 1.0)} if voices > 1 else {}),
            action=Discrete(sizes[0]) if len(sizes) == 1 else Factored(sizes),
            sample=SequenceSpec(self.length, sizes, self.encoding, self.bar),
            max_steps=self.length,
            context={"prime": TensorSpec("tokens", (len(sizes),), vocabulary=sizes)},
            info={"num_tokens": TensorSpec("label", (), 0, self.length + 1)},
            kinds=self.encoding.kinds,
        )

    def reset(self, n: int, rng: torch.Generator) -> CompositionState:
        prime = self.primes(n, rng)
        index = torch.randint(len(self.data), (n,), generator=rng, device=self.device)
        given = torch.where(self.from_data, self.data[index].to(torch.int16), -1)
        return CompositionState(torch.full_like(given, -1), given, prime, torch.zeros_like(index, dtype=torch.int16))

    def primes(self, n: int, rng: torch.Generator) -> Tensor:
        """The tokens that N sequences follow, int16 [N, F]; −1 for none."""
        sizes, device = self.encoding.vocabulary, self.device
        if self.prime == "none":
            return torch.full((n, len(sizes)), -1, dtype=torch.int16, device=device)
        # Never the last value: RL Tuner's primes are 0 to 36 of 38.
        columns = [torch.randint(max(size - 1, 1), (n,), generator=rng, device=device) for size in sizes]
        return torch.stack(columns, 1).to(torch.int16)

    def step(self, state: CompositionState, action: Tensor) -> CompositionState:
        step = state.step.long()
        here = (self.positions == step.unsqueeze(1)).unsqueeze(2)  # [N, T, 1]; nowhere once the piece is finished
        token = action.view(len(action), 1, -1).to(torch.int16)
        token = torch.where(state.given >= 0, state.given, token) if self.masked else token
        return state._replace(
            tokens=torch.where(here, token, state.tokens), step=(step + 1).clamp(max=self.length).to(torch.int16)
        )

    def done(self, state: CompositionState) -> Tensor:
        return state.step >= self.length

    def observe(self, state: CompositionState) -> Observation:
        step = state.step.long()
        index = step.unsqueeze(1) - self.history + self.positions[: self.history]  # [N, K]
        newest = state.tokens.gather(1, index.clamp(min=0).unsqueeze(2).expand(-1, -1, state.tokens.shape[2]))
        before = torch.where((index == -1).unsqueeze(2), state.prime.unsqueeze(1), -1)
        tokens = torch.where((index >= 0).unsqueeze(2), newest, before).long()
        position = self.encoding.onset(state.tokens, step) % self.bar // self.grid
        found = {
            "tokens": tokens,
            "time": encoded_time(step, self.length, self.time_encoding),
            "bar_position": _one_hot(position, self.bar_positions),
        }
        if self.encoding.voices > 1:
            found["voice"] = _one_hot(step % self.encoding.voices, self.encoding.voices)
        return found

    def view(self, state: CompositionState) -> View:
        return View(state.tokens.long(), {"prime": state.prime.long()}, {"num_tokens": state.step.long()})

    def action_mask(self, state: CompositionState) -> Tensor | None:
        """Bool [N, A]; None when all are allowed, and where an action is several decisions."""
        if not self.masked or len(self.encoding.vocabulary) > 1:
            return None
        step = state.step.long().clamp(max=self.length - 1)
        allowed = self.allowed[step % self.encoding.voices]  # [N, A]
        given = state.given.squeeze(2).gather(1, step.unsqueeze(1))
        codes = torch.arange(allowed.shape[1], device=self.device)
        return torch.where(given >= 0, codes == given, allowed)

    def teacher_states(self, tokens: Tensor, prime: Tensor) -> CompositionState:
        """The states in which each token of finished sequences [N, T, F], after a `prime` [N, F], was set, [T · N],
        step by step."""
        n = len(tokens)
        whole, length = tokens.to(torch.int16), self.length
        free = whole.new_full((1, 1, 1), -1).expand(n * length, *whole.shape[1:])
        step = self.positions.to(torch.int16).repeat_interleave(n)
        # Later tokens are left in: whatever reads a state reads those before its step only.
        return CompositionState(whole.repeat(length, 1, 1), free, prime.to(torch.int16).repeat(length, 1), step)


def _one_hot(index: Tensor, size: int) -> Tensor:
    """Float [N, size]; `torch.nn.functional.one_hot` checks the range on the host."""
    return (index.unsqueeze(1) == torch.arange(size, device=index.device)).float()
