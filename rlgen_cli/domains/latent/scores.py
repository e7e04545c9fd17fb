"""What a GAN itself says of a sample: how real it looks, how likely its latent is."""

from typing import Any

from torch import Tensor

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.types import Metrics, View


class Realism:
    """The logit of the GAN's own discriminator. With joint=true it changes, and a replay agent asks again."""

    judges = "latent"
    needs: frozenset[str] = frozenset()
    wants: frozenset[str] = frozenset()

    def __init__(self, *, gan: Any, joint: bool) -> None:
        if not hasattr(gan, "judge"):
            raise UserError("_target_: this generator comes without a discriminator; use reward=adversarial.")
        self.gan, self.changes = gan, joint

    def __call__(self, view: View) -> Tensor:
        return self.gan.judge(view.sample, view.context.label)

    def learn(self, after: View, done: Tensor, progress: float) -> Metrics:
        """The GAN trains its discriminator by itself."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class LatentWay:
    """Minus half the mean squared distance, a coordinate, between the latent and the one that the episode began with,
    which the prior drew: who moves each no farther than needed keeps them as different as they were."""

    judges = "latent"
    needs = frozenset(["origin"])

    def __call__(self, view: View) -> Tensor:
        assert view.latent is not None
        assert view.context.origin is not None
        return -0.5 * (view.latent - view.context.origin).square().mean(1)


class LatentPrior:
    """log N(z; 0, I) a coordinate, less its value at 0: −½ mean z², in nats. About −½ for what the prior draws."""

    judges = "latent"
    needs: frozenset[str] = frozenset()

    def __call__(self, view: View) -> Tensor:
        assert view.latent is not None
        return -0.5 * view.latent.square().mean(1)
