"""Keys and choices of earlier versions, and what they are called now."""

import re

# Patterns of whole keys, most specific first; the new name may use the pattern's groups.
KEYS: tuple[tuple[str, str], ...] = (
    (r"env\.action", "brush= (of the canvas), or steering= (of a generator)"),
    (r"env\.pen", "brush=pen or brush=pen_grid"),
    (r"env\.patch", "env.brush.patch_size"),
    (r"env\.preview", "env.brush.preview_scale"),
    (r"env\.(reach|line|widths|margin|grid|bends|levels|edge)", r"env.brush.\1"),
    (r"env\.begin", "env.given_tokens"),
    (r"env\.erase", "env.start.erase"),
    (r"env\.sight", "env.observation_size"),
    (r"env\.clock", "env.time_encoding (share is called fraction, steps one_hot)"),
    (r"env\.encoding\.joint", "env.encoding.separator"),
    (r"reward\.share", "reward.adversarial_fraction"),
    (r"reward\.terms\.(\w+)\.steps", r"reward.terms.\1.updates"),
    (r"reward\.terms\.classifier\.noise", "reward.terms.classifier.noise_std"),
    (r"reward\.terms\.(\w+)\.penalty", r"reward.terms.\1.loss.penalty.weight"),
    (r"reward\.terms\.(\w+)\.penalty_interval", r"reward.terms.\1.loss.penalty.interval"),
    (r"reward\.terms\.(\w+)\.pairs", r"reward.terms.\1.net.pairs"),
    (r"reward\.terms\.(\w+)\.memory", r"reward.terms.\1.buffer.buffer_size"),
    (r"reward\.terms\.(\w+)\.recent", r"reward.terms.\1.buffer.recent"),
    (r"reward\.terms\.(\w+)\.old", r"reward.terms.\1.buffer.old_fraction"),
    (r"reward\.terms\.(\w+)\.noise", r"reward.terms.\1.noise_std"),
    (r"env\.gan\.steps", "env.generator.updates"),
    (r"env\.gan\.fused", "env.generator.fused_reward.weight"),
    (r"env\.gan\.(balance|spread)", "env.generator.fused_reward.balance and noise_std"),
    (r"env\.gan\.average", "env.generator.ema_decay"),
    (r"env\.gan\.pace", "env.generator.optimizer.generator_lr_ratio"),
    (r"env\.gan\.(learning_rate|betas)(\..*)?", r"env.generator.optimizer.\1"),
    (r"env\.gan\.loss", "env.generator.loss.kind"),
    (r"env\.gan\.(penalise|penalty|penalty_interval)", "env.generator.loss.penalty"),
    (r"env\.gan\.chosen", "env.generator.joint_training.policy_latent_fraction"),
    (r"env\.gan\.interval", "env.generator.joint_training.interval"),
    (r"env\.gan\.memory", "env.generator.joint_training.buffer_size"),
    (r"env\.gan\.generator(\..*)?", r"env.generator.network\1"),
    (r"env\.gan(\..*)?", r"env.generator\1"),
    (r"env\.damage\.(form|strokes|width)", "damage=centre_hole, random_hole or scratches"),
    (r"env\.(space|basis|directions|stride|limit)", r"env.steering.\1"),
    (r"agent\.trace", "agent.td_lambda (of DQN) or agent.gae_lambda"),
    (r"agent\.stop_kl", "agent.target_kl"),
    (r"agent\.clip", "agent.objective.clip_range"),
    (r"agent\.value_clip", "agent.objective.clip_range_vf"),
    (r"agent\.entropy(\..*)?", r"agent.objective.entropy_coef\1 (of the actor-critic) or agent.entropy_coef\1"),
    (r"agent\.value_weight", "agent.objective.value_coef, or agent.baseline.value_coef"),
    (r"agent\.normalise", "agent.objective.normalize_advantage, or agent.normalize_advantage"),
    (r"agent\.rollout", "agent.num_steps"),
    (r"agent\.epochs", "agent.update_epochs"),
    (r"agent\.minibatches", "agent.num_minibatches"),
    (r"agent\.capacity", "agent.replay.buffer_size"),
    (r"agent\.warmup", "agent.learning_starts"),
    (r"agent\.priority", "replay=prioritized and agent.replay.sampling.priority_exponent"),
    (r"agent\.correction", "replay=prioritized and agent.replay.sampling.importance_exponent"),
    (r"agent\.sober", "agent.exploration.greedy_env_fraction"),
    (r"agent\.epsilon(\..*)?", r"agent.exploration.epsilon\1"),
    (r"agent\.learning_rate(\..*)?", r"agent.optimizer.learning_rate\1"),
    (r"agent\.(max_grad_norm|weight_decay)", r"agent.optimizer.\1"),
    (r"agent\.tau", "agent.target_update.tau"),
    (r"agent\.target_interval", "target_update=hard and agent.target_update.interval"),
    (r"agent\.double", "agent.backup.double"),
    (r"agent\.dueling", "agent.network.dueling"),
    (r"agent\.updates", "agent.gradient_steps"),
    (r"agent\.estimator", "agent=policy_gradient or agent=pathwise"),
    (r"agent\.group", "baseline=group and agent.baseline.group_size"),
    (r"agent\.anchor\.coefficient", "agent.anchor.kl_coef"),
    (r"agent\.anchor\.target", "agent.anchor.target_kl"),
    (r"agent\.(guide|spread)", r"agent.start.guide and agent.start.guide_std"),
    (r"agent\.rate", "agent.learning_rate"),
    (r"agent\.network\.memory(\..*)?", r"agent.network.recurrent\1"),
    (r"agent\.network\.head", "agent.network.maps"),
    (r"agent\.network\.(channels|depth)", r"agent.network.maps.\1"),
    (r"agent\.network\.spread", "agent.network.init_scale"),
    (r"agent\.network\.body\.(spread)", "agent.network.body.init_std"),
    (r"agent\.network\.body\.clock", "agent.network.body.vectors"),
)
CHOICES = {
    "gan": "generator",
    "network=policy": "network=mlp",
    "network=q": "network=mlp",
    "network=q_mlp": "network=mlp",
    "network=q_lstm": "network=lstm",
    "network=q_note_rnn": "network=note_rnn",
    "network/memory": "network/recurrent",
    "network/body=perceptron": "network/body=mlp",
    "network/body=newest": "network/body=last_token",
    "experiment=rl_tuner_ppo": "experiment=rl_tuner agent=ppo",
    "experiment=steer_ppo": "experiment=steer agent=ppo",
    "experiment=steer_dqn": "experiment=steer agent=dqn",
    "experiment=repair_dqn": "experiment=repair agent=dqn",
    "experiment=repair_pathwise": "experiment=repair agent=pathwise",
    "agent=likelihood": "agent=maximum_likelihood",
    "reward=pixel": "reward=target",
    "reward=tiny": "reward=target",
    "reward=latent_gan": "reward=realism",
    "reward=latent_music": "reward=realism",
    "data=pixel": "data=glyphs",
    "data=tiny": "data=glyphs",
    "data=latent_gan": "data=glyphs",
    "data=latent_music": "data=melodies",
    "data=music": "data=melodies",
    "reward=novelty": "reward=sequence_novelty",
    "damage=hole": "damage=centre_hole",
    "reward=repair": "reward=reconstruction",
    "reward=fit": "reward=consistency",
    "reward/term=known": "reward/term=known_region_error",
    "reward/term=truth": "reward/term=hidden_region_error",
    "reward/term=latent_way": "reward/term=latent_distance",
    "reward/term=echo": "reward/term=motif_repetition",
    "reward/term=picture_novelty": "reward/term=novelty",
}


def new_name(key: str) -> str | None:
    """«is called … now» for a key of an earlier version; None for one that never was."""
    for pattern, now in KEYS:
        match = re.fullmatch(pattern, key)
        if match:
            return f"is called {match.expand(now) if match.groups() and match.group(1) else _bare(now)} now."
    return None


def new_choice(group: str, name: str) -> str | None:
    """«is called … now» for a group or choice of an earlier version."""
    for old, now in CHOICES.items():
        if old in (f"{group}={name}", group):
            return f"is called {now if '=' in now else f'{now}={name}'} now."
    return None


def _bare(text: str) -> str:
    return text.replace("\\1", "")
