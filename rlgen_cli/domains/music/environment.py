"""Sequences, token by token: melodies, notes with dynamics, chorales, or any vocabulary."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rlgen_cli.data.images import Splits
from rlgen_cli.domains.music.encodings import Encoding
from rlgen_cli.core.errors import require
from rlgen_cli.domains.music.notes import MAJOR, NAMES
from rlgen_cli.core.types import (
    Context,
    Discrete,
    EnvSpec,
    Factored,
    Observation,
    ObservationSpec,
    Sequence,
    View,
)

SCALES = {"chromatic": range(12), "major": MAJOR, "minor": (0, 2, 3, 5, 7, 8, 10),
          "pentatonic": (0, 2, 4, 7, 9), "blues": (0, 3, 5, 6, 7, 10)}  # fmt: skip


class MusicState(NamedTuple):
    """N unfinished sequences."""

    tokens: Tensor  # int16 [N, T, F], −1 where nothing stands yet
    given: Tensor  # int16 [N, T, F], tokens that are set whatever the action; −1 where it is free
    prime: Tensor  # int16 [N, F], what is heard before the first token; −1 for nothing
    step: Tensor  # int16 [N]


class Music:
    """One token a step until there are `length` of them.

    Args:
        data, split: the sequences that give primes and given voices; rewards and pretraining learn from them, too.
        encoding: what a token means (encodings.py), as the data was encoded.
        length: tokens a piece.
        bar: sixteenths a bar. tempo: beats a minute, when it is played.
        key, scale: tokens outside are masked; chromatic allows all.
        prime: what is heard before the first token, but no part of the piece: none, or a random token.
        begin: tokens at the beginning that come from a data sequence. harmonise: the highest voice comes from one, too.
        history: tokens that a network without a memory sees.
        clock: how the policy sees the time: share (of tokens left) or steps (an input for each); the place in the bar
            and the voice are shown beside it.

    Raises:
        UserError: for a value out of range, or something that the encoding cannot have.
    """

    def __init__(
        self,
        *,
        data: Splits,
        split: Literal["train", "valid", "test"],
        device: torch.device,
        encoding: Encoding,
        length: int,
        bar: int,
        tempo: float,
        key: str,
        scale: Literal["chromatic", "major", "minor", "pentatonic", "blues"],
        prime: Literal["none", "random"],
        begin: int,
        harmonise: bool,
        history: int,
        clock: Literal["share", "steps"],
    ) -> None:
        require(key in NAMES, f"key: must be one of {', '.join(NAMES)}, got {key}.")
        require(20 <= tempo <= 400, f"tempo: must be from 20 to 400 beats a minute, got {tempo}.")
        require(0 <= begin <= length, f"begin: must be from 0 to env.length = {length}, got {begin}.")
        require(1 <= history <= length, f"history: must be from 1 to env.length = {length}, got {history}.")
        require(not harmonise or encoding.voices > 1, "harmonise: needs several voices; use encoding=chorale.")
        self.data: Tensor = getattr(data, split).tokens.to(device)
        self.encoding, self.device = encoding, device
        self.length, self.bar, self.tempo = length, bar, float(tempo)
        self.prime, self.begin, self.harmonise = prime, begin, harmonise
        self.history, self.clock = history, clock
        pitch_classes = frozenset((NAMES.index(key) + step) % 12 for step in SCALES[scale])
        self.tokens = torch.arange(length, device=device)
        self.within = encoding.allowed(pitch_classes).to(device)  # [voices, A]
        self.masked = not bool(self.within.all()) or begin > 0 or harmonise
        self.grid, self.places = max(encoding.grid, 1), -(-bar // max(encoding.grid, 1))
        self.spec = self._spec()

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

    def _spec(self) -> EnvSpec:
        sizes = self.encoding.vocabulary
        clock = 1 if self.clock == "share" else self.length
        voices = self.encoding.voices if self.encoding.voices > 1 else 0
        return EnvSpec(
            ObservationSpec((0, 0, 0), (0, 0, 0), clock + self.places + voices, history=self.history, vocabulary=sizes),
            Discrete(sizes[0]) if len(sizes) == 1 else Factored(sizes),
            Sequence(self.length, sizes, self.encoding, self.bar),
            self.length,
            frozenset(["prime"]),
            classes=0,
            kinds=self.encoding.kinds,
        )

    def reset(self, n: int, rng: torch.Generator) -> MusicState:
        prime = self.primes(n, rng)
        index = torch.randint(len(self.data), (n,), generator=rng, device=self.device)
        given = torch.where(self._given(), self.data[index].to(torch.int16), -1)
        return MusicState(torch.full_like(given, -1), given, prime, torch.zeros_like(index, dtype=torch.int16))

    def primes(self, n: int, rng: torch.Generator) -> Tensor:
        """What N sequences are heard to follow, int16 [N, F]."""
        sizes, device = self.encoding.vocabulary, self.device
        if self.prime == "none":
            return torch.full((n, len(sizes)), -1, dtype=torch.int16, device=device)
        # Never the last value: RL Tuner's primes are 0 to 36 of 38.
        columns = [torch.randint(max(size - 1, 1), (n,), generator=rng, device=device) for size in sizes]
        return torch.stack(columns, 1).to(torch.int16)

    def _given(self) -> Tensor:
        """Bool [T, 1]: tokens that the data gives."""
        given = self.tokens < self.begin
        if self.harmonise:
            given = given | (self.tokens % self.encoding.voices == 0)
        return given.unsqueeze(1)

    def step(self, state: MusicState, action: Tensor) -> MusicState:
        step = state.step.long()
        here = (self.tokens == step.unsqueeze(1)).unsqueeze(2)  # [N, T, 1]; nowhere once the piece is finished
        token = action.view(len(action), 1, -1).to(torch.int16)
        token = torch.where(state.given >= 0, state.given, token) if self.masked else token
        return state._replace(
            tokens=torch.where(here, token, state.tokens), step=(step + 1).clamp(max=self.length).to(torch.int16)
        )

    def done(self, state: MusicState) -> Tensor:
        return state.step >= self.length

    def observe(self, state: MusicState) -> Observation:
        step, n = state.step.long(), len(state.step)
        index = step.unsqueeze(1) - self.history + self.tokens[: self.history]  # [N, K]
        heard = state.tokens.gather(1, index.clamp(min=0).unsqueeze(2).expand(-1, -1, state.tokens.shape[2]))
        before = torch.where((index == -1).unsqueeze(2), state.prime.unsqueeze(1), -1)
        seen = torch.where((index >= 0).unsqueeze(2), heard, before).long()
        none = torch.zeros(n, 0, device=self.device)
        empty = none.view(n, 0, 0, 0)
        return Observation(empty, empty, self._clock(state.tokens, step), none, seen)

    def _clock(self, tokens: Tensor, step: Tensor) -> Tensor:
        """Time left, the place in the bar, and the voice, float [N, D]."""
        left = (1 - step / self.length).unsqueeze(1) if self.clock == "share" else step.unsqueeze(1) == self.tokens
        place = self.encoding.clock(tokens, step) % self.bar // self.grid
        parts = [left, place.unsqueeze(1) == torch.arange(self.places, device=self.device)]
        if self.encoding.voices > 1:
            voice = step % self.encoding.voices
            parts.append(voice.unsqueeze(1) == torch.arange(self.encoding.voices, device=self.device))
        return torch.cat([part.float() for part in parts], 1)

    def view(self, state: MusicState) -> View:
        return View(state.tokens.long(), Context(prime=state.prime.long()), state.step.long())

    def action_mask(self, state: MusicState) -> Tensor | None:
        if not self.masked or len(self.encoding.vocabulary) > 1:
            return None
        step = state.step.long().clamp(max=self.length - 1)
        within = self.within[step % self.encoding.voices]  # [N, A]
        given = state.given.squeeze(2).gather(1, step.unsqueeze(1))
        codes = torch.arange(within.shape[1], device=self.device)
        return torch.where(given >= 0, codes == given, within)

    def lessons(self, tokens: Tensor, prime: Tensor) -> MusicState:
        """The states in which each token of finished sequences [N, T, F], after a `prime` [N, F], was set, [T · N],
        step by step."""
        n = len(tokens)
        whole, length = tokens.to(torch.int16), self.length
        free = torch.full_like(whole, -1).repeat(length, 1, 1)
        step = self.tokens.to(torch.int16).repeat_interleave(n)
        # Later tokens are left in: whatever reads a state reads those before its step only.
        return MusicState(whole.repeat(length, 1, 1), free, prime.to(torch.int16).repeat(length, 1), step)
