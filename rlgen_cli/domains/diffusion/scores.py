"""What the steps of a sampler cost."""

from torch import Tensor

from rlgen_cli.core.specs import View


class StepCost:
    """Minus the number of steps made: each costs 1 times the term's weight."""

    judges = "picture"
    needs = frozenset(["num_steps"])

    def __call__(self, view: View) -> Tensor:
        return -view.info["num_steps"].float()
