"""TorchRL on rlgen's environment: its collectors, memories, losses and estimators, put together as its own examples for
DQN, A2C and PPO do. It is an optional package: `pip install torchrl`."""

from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import Categorical as Choice
from torchrl.data import Composite, LazyTensorStorage, TensorDictReplayBuffer, Unbounded
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase
from torchrl.modules import EGreedyModule, ProbabilisticActor, QValueModule
from torchrl.objectives import A2CLoss, ClipPPOLoss, DQNLoss, LossModule, SoftUpdate
from torchrl.objectives.value import GAE

from benchmarks.peers.networks import ActorCritic, Descent, QNetwork, num_actions
from benchmarks.peers.task import Loop, Task
from rlgen_cli.core.specs import Decision, ObservationSpec
from rlgen_cli.runs.assemble import Session
from rlgen_cli.runs.stepper import Stepper


def torch_rl(task: Task) -> Loop:
    """The training of the task's algorithm."""
    config, session = task.config(), task.session()
    torch.manual_seed(config.seed)
    env, spec = Drawings(session), session.envs["train"].spec
    if task.algorithm == "dqn":
        q = QNetwork(spec)
        return Loop(q, dqn(q, env, config), config.num_envs, lambda seen: q(seen).argmax(1))
    net = ActorCritic(spec, config.agent.network.init_scale)
    frames = config.num_envs * config.agent.num_steps
    return Loop(net, policy_gradient(net, env, config, frames), frames, lambda seen: net(seen)[0].argmax(1))


class Drawings(EnvBase):
    """rlgen's batched environment as TorchRL's, tensors to tensors."""

    def __init__(self, session: Session) -> None:
        n, self.spec_of_rlgen = session.settings.num_envs, session.envs["train"].spec
        super().__init__(batch_size=[n])
        self.stepper = Stepper(
            env=session.envs["train"], reward=session.reward, learners={}, rng=session.streams["env"], num_envs=n,
            group_size=1, together=True,
        )  # fmt: skip
        fields = {name: Unbounded((n, *part.shape)) for name, part in self.spec_of_rlgen.observation.items()}
        self.observation_spec = Composite(fields, shape=(n,))
        self.action_spec = Choice(num_actions(self.spec_of_rlgen), shape=(n,), dtype=torch.int64)
        self.reward_spec = Unbounded((n, 1))
        self.done_spec = Choice(2, shape=(n, 1), dtype=torch.bool)

    def _reset(self, tensordict: TensorDictBase | None, **options: Any) -> TensorDict:
        where = None if tensordict is None else tensordict.get("_reset", None)
        if where is None:
            self.stepper.enter(self.stepper.fresh())
        else:
            self.stepper.renew(where.squeeze(1))
        return self._seen(torch.zeros(self.batch_size, dtype=torch.bool))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        stepped = self.stepper.step(Decision(tensordict["action"]), None, 0.0)
        return self._seen(stepped.done).set("reward", stepped.scored.total.unsqueeze(1))

    def _seen(self, done: Tensor) -> TensorDict:
        """The observation, and which environments ended, bool [N]."""
        fields = {name: field.float() for name, field in self.stepper.env.observe(self.stepper.state).items()}
        ended = done.unsqueeze(1)
        return TensorDict({**fields, "done": ended, "terminated": ended.clone()}, self.batch_size)

    def _set_seed(self, seed: int | None) -> None:
        self.stepper.rng.manual_seed(seed or 0)


class Fields(nn.Module):
    """A network of named observations [N, …] as a module that takes the fields in turn, with any leading dimensions."""

    def __init__(self, net: nn.Module, spec: ObservationSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def forward(self, *fields: Tensor) -> Tensor:
        given = zip(fields, self.spec.items(), strict=True)
        flat = {name: field.reshape(-1, *part.shape) for field, (name, part) in given}
        first = next(iter(self.spec.values()))
        out: Tensor = self.net(flat)
        return out.view(*fields[0].shape[: fields[0].dim() - len(first.shape)], -1)


class Logits(nn.Module):
    """The policy's head on the features, and the gains."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, gains: Tensor) -> Tensor:
        out: Tensor = self.head(features) + gains
        return out


def dqn(net: QNetwork, env: Drawings, config: DictConfig) -> Iterator[None]:
    """As in TorchRL's sota-implementations/dqn."""
    agent, epsilon, spec = config.agent, config.agent.exploration.epsilon, env.spec_of_rlgen.observation
    q = TensorDictSequential(
        TensorDictModule(Fields(net, spec), in_keys=list(spec), out_keys=["action_value"]),
        QValueModule(spec=env.action_spec_unbatched),
    )
    annealing = max(round(epsilon.share * config.total_steps), 1)
    greedy = EGreedyModule(env.action_spec_unbatched, epsilon.start, epsilon.end, annealing_num_steps=annealing)
    collector = collected(env, TensorDictSequential(q, greedy), config.num_envs, config.total_steps)
    memory = TensorDictReplayBuffer(storage=LazyTensorStorage(agent.replay.buffer_size), batch_size=agent.batch_size)
    loss = DQNLoss(q, loss_function="smooth_l1", delay_value=True, action_space="categorical")
    loss.make_value_estimator(gamma=agent.gamma.end)
    follow = SoftUpdate(loss, tau=agent.target_update.tau)
    descent = Descent(list(loss.parameters()), agent.optimizer)
    for i, batch in enumerate(collector):
        memory.extend(batch.reshape(-1))
        greedy.step(batch.numel())
        if (i + 1) * config.num_envs >= agent.learning_starts:
            descent.step(loss(memory.sample())["loss"], i * config.num_envs / config.total_steps)
            follow.step()
        yield


def policy_gradient(net: ActorCritic, env: Drawings, config: DictConfig, frames: int) -> Iterator[None]:
    """As in TorchRL's sota-implementations/a2c and /ppo."""
    agent, spec = config.agent, env.spec_of_rlgen.observation
    body = TensorDictModule(Fields(net.body, spec), in_keys=list(spec), out_keys=["features"])
    logits = TensorDictModule(Logits(net.actor), in_keys=["features", "action_gain"], out_keys=["logits"])
    value = TensorDictModule(net.critic, in_keys=["features"], out_keys=["state_value"])
    actor = ProbabilisticActor(
        TensorDictSequential(body, logits), in_keys=["logits"], spec=env.action_spec_unbatched,
        distribution_class=torch.distributions.Categorical, return_log_prob=True,
    )  # fmt: skip
    critic = TensorDictSequential(body, value)
    whole = agent.num_minibatches == 1
    collector = collected(env, actor, frames, config.total_steps)
    advantage = GAE(gamma=agent.gamma, lmbda=agent.gae_lambda, value_network=critic, average_gae=whole)
    memory = TensorDictReplayBuffer(
        storage=LazyTensorStorage(frames), sampler=SamplerWithoutReplacement(),
        batch_size=frames // agent.num_minibatches,
    )  # fmt: skip
    loss = objective(actor, critic, agent.objective)
    descent = Descent(list(loss.parameters()), agent.optimizer)
    for i, batch in enumerate(collector):
        with torch.no_grad():
            memory.extend(advantage(batch).reshape(-1))
        for _ in range(agent.update_epochs):
            for part in memory:
                terms = loss(part)
                total = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
                descent.step(total, ((i + 1) * frames - config.num_envs) / config.total_steps)
        yield


def collected(env: Drawings, policy: TensorDictSequential, frames: int, total: int) -> Collector:
    """Batches of `frames` steps, all environments together; a policy without memory needs no mark where one begins."""
    return Collector(
        env, policy, frames_per_batch=frames, total_frames=total, auto_register_policy_transforms=False
    )  # fmt: skip


def objective(
    actor: ProbabilisticTensorDictSequential, critic: TensorDictSequential, settings: DictConfig
) -> LossModule:
    """PPO's clipped loss, or A2C's, which has no ratio to clip."""
    common = {
        "entropy_coeff": settings.entropy_coef.start,
        "critic_coeff": settings.value_coef / 2,  # rlgen halves the squared error
        "loss_critic_type": "l2",
    }
    if settings.clip_range is None:
        return A2CLoss(actor, critic, **common)
    return ClipPPOLoss(actor, critic, **common, clip_epsilon=settings.clip_range, normalize_advantage=True)
