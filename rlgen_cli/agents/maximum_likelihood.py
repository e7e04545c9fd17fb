"""Maximum likelihood: a policy that imitates the data's sequences and looks at no reward. `rlgen pretrain` trains it to
its best held-out likelihood; other agents then begin with it and are kept near it (prior.py)."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rlgen_cli.policies.actor import Actor, taught
from rlgen_cli.data.sequences import Sequences
from rlgen_cli.core.errors import require
from rlgen_cli.policies.distributions import Categorical
from rlgen_cli.policies.precision import Precision
from rlgen_cli.core.schedules import Linear
from rlgen_cli.core.types import Carry, Choice, Discrete, Env, EnvSpec, Metrics, Sequence, State, Transition


class Likelihood:
    """A sequence model by teacher forcing.

    Args:
        network: builds a policy network from observation and action specs.
        batch_size: sequences per update. updates: per batched environment step, where it is trained with those.
        weight_decay: half the price of each weight's square, that is a normal prior on weights.
        temperature: divides the logits wherever it acts: below 1 it makes likelier sequences, fewer of them.
        learning_rate: a schedule over the training.
        evaluate: as in the other agents with a policy.

    Raises:
        UserError: for a value out of range.
    """

    group, wants = 1, "policy"

    @staticmethod
    def accepts(spec: EnvSpec) -> bool:
        """Only sequences come as demonstrations."""
        return isinstance(spec.sample, Sequence)

    def __init__(
        self,
        *,
        env: Any,
        real: Sequences,
        rng: torch.Generator,
        device: torch.device,
        precision: Precision,
        network: Callable[..., nn.Module],
        batch_size: int,
        updates: int,
        weight_decay: float,
        learning_rate: Linear,
        max_grad_norm: float,
        temperature: float,
        evaluate: Literal["sample", "mode"],
    ) -> None:
        require(batch_size >= 1, f"batch_size: must be at least 1, got {batch_size}.")
        require(updates >= 1, f"updates: must be at least 1, got {updates}.")
        require(weight_decay >= 0, f"weight_decay: must be at least 0, got {weight_decay}.")
        require(max_grad_norm > 0, f"max_grad_norm: must be above 0, got {max_grad_norm}.")
        self.env, self.tokens, self.rng = env, real.tokens, rng
        self.batch_size, self.updates = min(batch_size, len(real.tokens)), updates
        self.learning_rate, self.max_grad_norm = learning_rate, float(max_grad_norm)
        self.actor = Actor(env=env, network=network, device=device, precision=precision, evaluate=evaluate)
        require(temperature > 0, f"temperature: must be above 0, got {temperature}.")
        require(
            temperature == 1 or isinstance(env.spec.action, Discrete),
            "temperature: other than 1 needs tokens of one part; use encoding=melody, chorale or tokens.",
        )
        self.temperature = float(temperature)
        self.order = torch.empty(0, dtype=torch.long, device=device)  # what of this pass over the data is to come
        self.optimizer = torch.optim.Adam(
            self.actor.net.parameters(), learning_rate(0.0), weight_decay=weight_decay, foreach=True
        )

    def carry(self, n: int) -> Carry:
        return self.actor.carry(n)

    def act(self, env: Env, state: State, carry: Carry, *, explore: bool, rng: torch.Generator) -> Choice:
        if self.temperature == 1:
            return self.actor.act(env, state, carry, explore=explore, rng=rng)
        with torch.no_grad():
            out = self.actor.say(env, state, carry, torch.zeros_like(env.done(state)).unsqueeze(0))
            policy = self._tempered(out.policy)
            return Choice(policy.draw(rng)[0] if self.actor.evaluate == "sample" else policy.mode(), out.carry)

    def _tempered(self, policy: Any) -> Any:
        """The policy at `temperature`."""
        return policy if self.temperature == 1 else Categorical(policy.log_p / self.temperature)

    def observe(self, transition: Transition) -> None:
        pass

    def update(self, progress: float) -> Metrics:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(progress)
        nll = torch.zeros(())
        for _ in range(self.updates):
            self.actor.net.train()
            nll = self.nll(self.tokens[self._draw()], self.rng).mean()
            self.optimizer.zero_grad(set_to_none=True)
            nll.backward()
            torch.nn.utils.clip_grad_norm_(self.actor.net.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.actor.net.eval()
        return {"nll": nll.detach()}

    def _draw(self) -> Tensor:
        """Indices of a batch: passes over all sequences, each in an order of its own, less what fills no batch."""
        if len(self.order) < self.batch_size:
            self.order = torch.randperm(len(self.tokens), generator=self.rng, device=self.tokens.device)
        index, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        return index

    def nll(self, tokens: Tensor, rng: torch.Generator) -> Tensor:
        """−log p of each token of sequences [N, T, F] after primes as the environment has them, in nats, [T, N]."""
        with self.actor.precision():
            policy, action = taught(self.env, self.actor.net, tokens, self.env.primes(len(tokens), rng))
        return -self._tempered(policy).judge(action)[0].view(-1, len(tokens))

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.actor.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.actor.net.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order = state["order"]
