"""The published Note RNN of RL Tuner (Jaques et al. 2017), whose weights come as four arrays."""

import functools
from pathlib import Path

import torch
from torch import Tensor

from rlgen_cli.core.arrays import read_arrays
from rlgen_cli.core.errors import UserError, reason_of, require
from rlgen_cli.core.specs import ActionSpec, ObservationSpec
from rlgen_cli.policies.encoders import LastToken
from rlgen_cli.policies.policy_network import PolicyNetwork
from rlgen_cli.policies.precision import Precision
from rlgen_cli.policies.recurrent import LSTM

WIDTH = 100
ARRAYS = ("lstm_kernel", "lstm_bias", "softmax_kernel", "softmax_bias")


def note_rnn(observation: ObservationSpec, action: ActionSpec, precision: Precision) -> PolicyNetwork:
    """The published architecture (as network/note_rnn.yaml has it), without its weights."""
    body = functools.partial(LastToken, lags=[1], embed=0, init_std=1.0, vectors=False, dropout=0.0)
    return PolicyNetwork(
        observation=observation, action=action, precision=precision, body=body,
        recurrent=functools.partial(LSTM, width=WIDTH), maps=None, denoiser=None,
        order="independent", continuous="gaussian", std=1.0, init_scale=0.01, dropout=0.0,
    )  # fmt: skip


def note_rnn_weights(path: Path, key: str) -> dict[str, Tensor]:
    """The arrays as weights of a policy of network/note_rnn.yaml: one-hot token, LSTM, linear head.

    TensorFlow's cell takes inputs and memory through one kernel whose gates are in the order i, candidate, f, o, and
    adds 1 to f at run time; here they are i, f, candidate, o with the 1 in the bias.

    Raises:
        UserError: for a file that is not there or holds other arrays.
    """
    try:
        weights = read_arrays(path, ARRAYS)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}: {path} holds no Note RNN ({reason_of(error)}).") from None
    kernel, bias, out, out_bias = (weights[name] for name in ARRAYS)
    width, actions = out.shape if out.dim() == 2 else (0, 0)
    wanted = [[max(len(kernel), width + 1), 4 * width], [4 * width], [actions]] if kernel.dim() else []
    fits = width > 0 and [list(part.shape) for part in (kernel, bias, out_bias)] == wanted
    require(fits, f"{key}: {path} holds no Note RNN (its arrays do not fit together).")
    i, candidate, forget, o = kernel.T.chunk(4)  # [width, inputs + width] each
    i_bias, candidate_bias, forget_bias, o_bias = bias.chunk(4)
    gates = torch.cat([i, forget, candidate, o])
    inputs = gates.shape[1] - out.shape[0]
    return {
        "recurrent.cell.weight_ih": gates[:, :inputs].contiguous(),
        "recurrent.cell.weight_hh": gates[:, inputs:].contiguous(),
        "recurrent.cell.bias_ih": torch.cat([i_bias, forget_bias + 1, candidate_bias, o_bias]),
        "recurrent.cell.bias_hh": torch.zeros_like(bias),
        "head.logits.0.weight": out.T.contiguous(),
        "head.logits.0.bias": out_bias,
    }
