"""How well a repair fits what is left of the picture, and the picture as it was."""

from torch import Tensor

from rlgen_cli.core.types import View


class Known:
    """Minus the mean squared difference from the damaged picture where it is as it was; the truth is not looked at.
    Where nothing is known for certain (noise), all of it is compared."""

    judges = "picture"
    needs = frozenset(["given"])

    def __call__(self, view: View) -> Tensor:
        given, known = view.context.given, view.context.known
        assert given is not None
        assert known is not None
        counted = (known | ~known.any(dim=3, keepdim=True).any(dim=2, keepdim=True)).expand_as(given)
        error = ((view.sample - given).square() * counted).sum((1, 2, 3))
        return -error / counted.sum((1, 2, 3))


class Truth:
    """Minus the mean squared difference from the undamaged picture, over what is not known for certain."""

    judges = "picture"
    needs = frozenset(["target", "known"])

    def __call__(self, view: View) -> Tensor:
        target, known = view.context.target, view.context.known
        assert target is not None
        assert known is not None
        hidden = (~known).expand_as(target)
        return -((view.sample - target).square() * hidden).sum((1, 2, 3)) / hidden.sum((1, 2, 3)).clamp(min=1)
