"""How well a damaged picture is restored."""

from torch import Tensor

from rlgen_cli.core.specs import View


class KnownRegionError:
    """Minus the mean squared difference from the damaged picture where it is as it was; the undamaged picture is not
    looked at. Where nothing is known for certain (noise), all of it is compared."""

    judges = "picture"
    needs = frozenset(["damaged", "known_mask"])

    def __call__(self, view: View) -> Tensor:
        damaged, known = view.context["damaged"], view.context["known_mask"]  # [N, C, H, W], [N, 1, H, W]
        nothing = ~known.any(dim=3, keepdim=True).any(dim=2, keepdim=True)  # [N, 1, 1, 1]
        compared = (known | nothing).expand_as(damaged)
        error = ((view.sample - damaged).square() * compared).sum((1, 2, 3))
        return -error / compared.sum((1, 2, 3))


class HiddenRegionError:
    """Minus the mean squared difference from the undamaged picture, over what is not known for certain."""

    judges = "picture"
    needs = frozenset(["target", "known_mask"])

    def __call__(self, view: View) -> Tensor:
        target = view.context["target"]
        hidden = (~view.context["known_mask"]).expand_as(target)
        error = ((view.sample - target).square() * hidden).sum((1, 2, 3))
        return -error / hidden.sum((1, 2, 3)).clamp(min=1)
