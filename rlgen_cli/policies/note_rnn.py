"""The published Note RNN of RL Tuner (Jaques et al. 2017), whose weights come as four arrays."""

import functools
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError
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
        recurrent=functools.partial(LSTM, width=WIDTH), maps=None, order="independent",
        continuous="gaussian", std=1.0, init_scale=0.01, dropout=0.0,
    )  # fmt: skip


def note_rnn_weights(path: Path, key: str) -> dict[str, Tensor]:
    """The arrays as weights of a policy of network/note_rnn.yaml: one-hot token, LSTM, linear head.

    TensorFlow's cell takes inputs and memory through one kernel whose gates are in the order i, candidate, f, o, and
    adds 1 to f at run time; here they are i, f, candidate, o with the 1 in the bias.

    Raises:
        UserError: for a file that is not there or holds other arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            kernel, bias, out, out_bias = (torch.from_numpy(np.array(file[name])).float() for name in ARRAYS)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{key}: {path} holds no Note RNN ({reason}).") from None
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
