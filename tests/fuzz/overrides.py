"""The words of a command line, one a line, composed to a config and its top-level keys checked. Nothing is built: what a
command line names is the user's own to run."""

import contextlib
import io

from rlgen_cli.config.compose import composed
from rlgen_cli.runs.assemble import settings_of

WORDS = [
    "env=pixel agent=dqn reward=target", "env=music agent=ppo encoding=melody", "network=gru network/body=convolutions",
    "+reward/term=ink_cost reward.terms.ink_cost.weight=0.1", "reward=[target,coverage]", "experiment=resketch data=glyphs",
    "agent.optimizer.learning_rate=1e-3 agent.gamma=0.9", "env.size=16 num_envs=8 seed=3 total_steps=100",
    "~reward env=latent_gan", "data=folder data.path='~/a b/[c]' data.background=auto", "++x.y={a: [1, 2]}",
    "agent.network.maps=null env.brush.widths=[1,2]", "hydra.run.dir=outputs/x paths.data=null", "--cfg job", "a='b c'",
    "reward.terms.function.path=./f.py:g reward=function", "env.stop=${seed} agent=${env}",
]  # fmt: skip


def target(data: bytes) -> None:
    text = data.decode("utf-8", "replace").replace("\0", "")  # which no command line can hold
    words = [word for word in text.split("\n") if word]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            settings_of(composed("train", words))
    except SystemExit as end:  # a flag that Hydra does not know, whose usage argparse shows
        if end.code != 2:
            raise


def seeds() -> list[bytes]:
    return [words.replace(" ", "\n").encode() for words in WORDS if "{" not in words and "'" not in words]
