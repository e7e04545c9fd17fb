"""Sequences drawn from the published SeqGAN oracle (Yu et al. 2017), and how likely it finds others."""

from pathlib import Path

import torch
from torch import Tensor

from rlgen_cli.core.arrays import read_arrays
from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.seeding import stream
from rlgen_cli.data.images import Splits
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.domains.music.encodings import MusicEncoding, Tokens

START = 0  # the token before the first
INPUTS, MEMORY, GATES = ([f"{letter}{gate}" for gate in "ifoc"] for letter in "WUb")  # names of arrays


class Oracle:
    """A fixed LSTM over 5 000 tokens; its weights are the arrays of `path`."""

    def __init__(self, path: Path) -> None:
        try:
            weight = read_arrays(path, [*INPUTS, *MEMORY, *GATES, "embedding", "Wv", "bv"])
            self.embedding, self.out, self.bias = weight["embedding"], weight["Wv"], weight["bv"]
            self.inputs = torch.cat([weight[name] for name in INPUTS], 1)  # [32, 4 · 32]
            self.memory = torch.cat([weight[name] for name in MEMORY], 1)
            self.gates = torch.cat([weight[name] for name in GATES])
            (words, width), hidden = self.embedding.shape, len(self.memory)
            shapes = [(width, 4 * hidden), (hidden, 4 * hidden), (4 * hidden,), (hidden, words), (words,)]
            parts = [self.inputs, self.memory, self.gates, self.out, self.bias]
            require(words > START and [tuple(part.shape) for part in parts] == shapes, "its arrays do not fit together")
        except (OSError, ValueError, RuntimeError, IndexError, UserError) as error:  # torch raises two of them
            raise UserError(f"data.path: {path} holds no SeqGAN oracle ({reason_of(error)}).") from None

    def _step(self, token: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, 5000] after `token` [N], and the memory."""
        i, f, o, c = (self.embedding[token] @ self.inputs + hidden @ self.memory + self.gates).chunk(4, 1)
        cell = f.sigmoid() * cell + i.sigmoid() * c.tanh()
        hidden = o.sigmoid() * cell.tanh()
        return hidden @ self.out + self.bias, hidden, cell

    @torch.no_grad()
    def sample(self, n: int, length: int, rng: torch.Generator) -> Tensor:
        """N sequences, int64 [N, length], by the inverse of the cumulative distribution (7 times faster here than
        torch.multinomial)."""
        token, hidden = torch.full((n,), START), torch.zeros(n, len(self.memory))
        cell, made = torch.zeros_like(hidden), []
        for _ in range(length):
            logits, hidden, cell = self._step(token, hidden, cell)
            cumulative = logits.softmax(1).double().cumsum(1)
            draw = torch.rand(n, 1, generator=rng, dtype=torch.float64) * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, draw).squeeze(1).clamp(max=logits.shape[1] - 1)
            made.append(token)
        return torch.stack(made, 1)

    @torch.no_grad()
    def nll(self, tokens: Tensor) -> Tensor:
        """Mean −log p of each token of sequences [N, T], in nats, [N]."""
        hidden = torch.zeros(len(tokens), len(self.memory))
        cell, before, total = torch.zeros_like(hidden), torch.full_like(tokens[:, 0], START), torch.zeros(len(tokens))
        for token in tokens.unbind(1):
            logits, hidden, cell = self._step(before, hidden, cell)
            total += logits.log_softmax(1).gather(1, token.unsqueeze(1)).squeeze(1)
            before = token
        return -total / tokens.shape[1]


class OracleSamples:
    """`count` training sequences from the oracle at `path`, and a tenth as many to validate and to test."""

    def __init__(self, path: str, count: int, seed: int) -> None:
        require(count >= 10, f"count: must be at least 10, got {count}.")
        self.path, self.count, self.seed = Path(path), count, seed

    def load(self, encoding: MusicEncoding, length: int, bar: int) -> Splits:
        if not isinstance(encoding, Tokens):
            raise UserError("data=oracle: has no notes; use encoding=tokens.")
        oracle, rng = Oracle(self.path), stream(self.seed, "oracle")
        fitted = encoding.with_vocabulary([f"w{i}" for i in range(len(oracle.bias))], " ")
        counts = (self.count, self.count // 10, self.count // 10)
        return Splits(*(Sequences(oracle.sample(n, length, rng).unsqueeze(2), fitted) for n in counts))
