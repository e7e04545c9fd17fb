"""What every dataset of music or text comes to: token sequences."""

from typing import NamedTuple

import torch
from torch import Tensor

from rlgen_cli.core.protocols import Encoding


class Sequences(NamedTuple):
    """One split of token sequences, all as long as the environment's."""

    tokens: Tensor  # int64 [M, T, F]
    encoding: Encoding
    classes: tuple[str, ...] = ()  # no labels

    def to(self, device: torch.device | str) -> "Sequences":
        return Sequences(self.tokens.to(device), self.encoding, self.classes)

    def __len__(self) -> int:
        raise TypeError("use tokens.shape[0]: a NamedTuple's length counts its fields")
