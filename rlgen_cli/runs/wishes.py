"""What `rlgen paint` moves strokes towards beside the likeness: scores of finished pictures, those of `reward=`."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from omegaconf import DictConfig
from torch import Tensor

from rlgen_cli.config.instantiate import plain
from rlgen_cli.core.errors import require
from rlgen_cli.core.specs import PictureSpec, View
from rlgen_cli.core.stages import Helpers
from rlgen_cli.runs.assemble import Session, build_score
from rlgen_cli.runs.stages import fit_cached
from rlgen_cli.runs.style import check_number

# What a painting is worth beside its likeness, float [N], of pictures and targets, float [N, C, H, W] in [0, 1].
Wish: TypeAlias = Callable[[Tensor, Tensor], Tensor]

GIVEN = {"style": "style", "clip": "prompt"}  # keys without which these terms have nothing to compare with


def wished(config: DictConfig) -> dict[str, Any]:
    """The terms that count, by name, as plain values.

    Raises:
        UserError: for a weight that is no number from 0 on, and where no update would follow them.
    """
    found = {}
    for name, node in config.terms.items():
        weight = node.get("weight")
        check_number(f"terms.{name}.weight", weight, 0, 1e6)
        given = config[GIVEN[str(name)]] is not None if name in GIVEN else True
        if given and weight > 0:
            found[str(name)] = plain(node)
    moves = not found or config.refine > 0
    require(moves, f"refine: must be above 0, since terms.{next(iter(found), '')} counts in the finish alone.")
    return found


class Wishes:
    """The weighted sum of scores, built for pictures of any size.

    Args:
        terms: of `wished`. session: gives the data on which the small networks of some scores are fitted.
    """

    def __init__(self, terms: dict[str, Any], session: Session) -> None:
        self.terms, self.session = terms, session
        self.helpers = Helpers()
        self.built: dict[int, list[tuple[float, Callable[[View], Tensor]]]] = {}

    def of_side(self, side: int) -> Wish | None:
        """For pictures whose shorter side has so many pixels; None where nothing is wished for."""
        if not self.terms:
            return None
        if side not in self.built:
            self.built[side] = [self._built(name, dict(values), side) for name, values in self.terms.items()]
        return partial(weighted, self.built[side])

    def _built(self, name: str, values: dict[str, Any], side: int) -> tuple[float, Callable[[View], Tensor]]:
        weight, _ = float(values.pop("weight")), values.pop("form", None)
        session, fitted = self.session, len(self.helpers.stages)
        spec = session.envs["test"].spec
        channels, target = spec.picture().channels, {"target": spec.context["target"]}
        spec = replace(spec, sample=PictureSpec(channels, side, side), context=target, info={})
        real = session.data.train.to(session.device) if session.data is not None else None
        runtime = {"spec": spec, "real": real, "device": session.device, "helpers": self.helpers}
        score = build_score(values, f"terms.{name}", spec, None, runtime)
        for stage in self.helpers.stages[fitted:]:
            fit_cached(stage, session)
        with torch.enable_grad():
            probe = torch.full((1, channels, side, side), 0.5, device=session.device, requires_grad=True)
            learns = score(View(probe, {"target": probe.detach()}, {})).requires_grad
        require(learns, f"terms.{name}: has no gradient, which the finish needs; take it out.")
        return weight, score


def weighted(scores: list[tuple[float, Callable[[View], Tensor]]], picture: Tensor, target: Tensor) -> Tensor:
    """The sum of scores times their weights, [N]."""
    view = View(picture, {"target": target}, {})
    return torch.stack([weight * score(view) for weight, score in scores]).sum(0)
