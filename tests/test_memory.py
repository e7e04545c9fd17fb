from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from rlgen_cli.core.errors import UserError
from rlgen_cli.memory.replay import Replay
from rlgen_cli.core.types import Transition


class Counter(NamedTuple):
    """A state that says which episode and which step it is."""

    episode: Tensor
    step: Tensor


def play(replay: Replay, calls: int, lengths: list[int]) -> None:
    """`calls` steps of environments whose episodes have fixed lengths; action = 100 · episode + step."""
    length = torch.tensor(lengths)
    episode, step = torch.zeros(len(lengths), dtype=torch.long), torch.zeros(len(lengths), dtype=torch.long)
    for _ in range(calls):
        action = 100 * episode + step
        done = step + 1 >= length
        before, after = Counter(episode, step), Counter(episode, step + 1)
        replay.add(Transition(before, action, action.float(), action.float(), after, done))
        episode, step = episode + done, torch.where(done, 0, step + 1)


@pytest.mark.parametrize("priority", [0.0, 0.6])
@pytest.mark.parametrize(("calls", "length"), [(12, 1), (12, 3), (57, 1), (57, 4)])
def test_windows_are_true_stretches_of_time(calls, length, priority):
    replay = Replay(60, 3, torch.device("cpu"), priority, 0.4, False)
    play(replay, calls, [3, 5, 7])
    window = replay.sample(400, length, torch.Generator().manual_seed(0))
    states = Counter(*(field.view(400, length + 1) for field in window.states))
    valid = window.valid
    assert valid.float().mean() > 0.6
    here = 100 * states.episode[:, :-1] + states.step[:, :-1]
    assert torch.equal(here[valid], window.action[valid])  # the frame that the action was taken in
    assert torch.equal(states.episode[:, 1:][valid], states.episode[:, :-1][valid])
    assert torch.equal(states.step[:, 1:][valid], states.step[:, :-1][valid] + 1)  # the frame it led to
    lengths = torch.tensor([3, 5, 7])[window.start % 3].unsqueeze(1)
    ends = states.step[:, :-1] + 1 >= lengths
    assert torch.equal(window.terminated[valid], ends[valid])
    assert (states.episode >= 0).all()
    if priority:
        assert valid[:, 0].all()  # a window never begins in a final frame


def test_old_frames_are_overwritten():
    replay = Replay(40, 2, torch.device("cpu"), 0.0, 0.4, False)
    play(replay, 200, [4, 4])
    window = replay.sample(500, 1, torch.Generator().manual_seed(0))
    episodes = window.states.episode.view(500, 2)[window.valid[:, 0]]
    assert episodes.min() >= 200 // 4 - 20 // 5 - 1


def test_urgent_windows_come_more_often():
    replay = Replay(80, 2, torch.device("cpu"), 1.0, 1.0, False)
    play(replay, 30, [50, 50])
    rng = torch.Generator().manual_seed(0)
    first = replay.sample(64, 1, rng)
    replay.set_urgency(torch.arange(80), torch.zeros(80))
    replay.set_urgency(first.start[:1], torch.tensor([10.0]))
    again = replay.sample(200, 1, rng)
    share = (again.start == first.start[0]).float().mean()
    assert share > 0.9
    assert again.weight[again.start == first.start[0]].max() < again.weight.max() or share == 1


def test_a_memory_too_small_is_refused():
    with pytest.raises(UserError, match="capacity"):
        Replay(10, 8, torch.device("cpu"), 0.0, 0.4, False)


def test_only_finished_samples_are_kept_and_the_newest_drawn():
    from rlgen_cli.memory.sample_buffer import Finished

    memory, rng = Finished(3, (1,), torch.float, torch.device("cpu")), torch.Generator().manual_seed(0)
    for i in range(0, 8, 2):  # of 0 … 7, the even ones are finished
        rows = torch.tensor([[float(i)], [float(i + 1)]])
        memory.add(rows, torch.tensor([i, i + 1]), torch.tensor([True, False]))
    assert int(memory.count) == 3
    rows, labels = memory.draw(torch.full((200,), 2), rng)
    assert set(rows.flatten().tolist()) == {4.0, 6.0}
    assert torch.equal(rows.flatten().long(), labels)
    rows, _ = memory.draw(memory.count.expand(200), rng)
    assert set(rows.flatten().tolist()) == {2.0, 4.0, 6.0}
