"""How real samples look to their generator's discriminator, and how likely latents are."""

from torch import Tensor

from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Generator, HasCritic
from rlgen_cli.core.specs import View


class Realism:
    """The logit of the generator's own discriminator.

    Args:
        generator: what the environment steers.
        joint: it learns along with the policy, so that a replay agent asks again.

    Raises:
        UserError: for a generator without a discriminator.
    """

    judges = "latent"
    needs: frozenset[str] = frozenset()

    def __init__(self, *, generator: Generator, joint: bool) -> None:
        if not isinstance(generator, HasCritic):
            raise UserError("_target_: this generator comes without a discriminator; use reward=adversarial.")
        self.critic, self.learned = generator, joint

    def __call__(self, view: View) -> Tensor:
        return self.critic.realism(view.sample, view.context.get("label"))


class LatentDistance:
    """Minus half the mean squared distance, a coordinate, between the latent and the one that the episode began with,
    which the prior drew: who moves each no farther than needed keeps samples as different as they were."""

    judges = "latent"
    needs = frozenset(["latent", "start_latent"])

    def __call__(self, view: View) -> Tensor:
        return -0.5 * (view.info["latent"] - view.context["start_latent"]).square().mean(1)


class LatentPrior:
    """log N(z; 0, I) a coordinate, less its value at 0: −½ mean z², in nats. About −½ for what the prior draws."""

    judges = "latent"
    needs = frozenset(["latent"])

    def __call__(self, view: View) -> Tensor:
        return -0.5 * view.info["latent"].square().mean(1)
