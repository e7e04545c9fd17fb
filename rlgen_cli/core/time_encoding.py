"""How a policy sees the time: the share of an episode that is left, or which step it is."""

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from rlgen_cli.core.specs import TensorSpec, vector

TimeEncoding: TypeAlias = Literal["fraction", "one_hot"]


def time_spec(encoding: TimeEncoding, length: int) -> TensorSpec:
    """Of what `encoded_time` makes for episodes of `length` steps."""
    return vector(1 if encoding == "fraction" else length, 0.0, 1.0)


def encoded_time(step: Tensor, length: int, encoding: TimeEncoding) -> Tensor:
    """The fraction of steps left, float [N, 1], or the step as one of `length`, [N, length], which is all 0 at the end.

    Args:
        step: [N], from 0 to length.
    """
    if encoding == "fraction":
        return 1 - step.unsqueeze(1) / length
    return (step.unsqueeze(1) == torch.arange(length, device=step.device)).float()
