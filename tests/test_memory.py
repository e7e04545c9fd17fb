"""What agents remember: windows are true stretches of time, kept and saved to the bit."""

from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from rlgen_cli.core import checkpoint
from rlgen_cli.core.errors import UserError
from rlgen_cli.core.protocols import Env, PacksStates
from rlgen_cli.core.specs import ActionSpec, Continuous, Discrete, Factored, Mixed, Transition
from rlgen_cli.memory.records import Records
from rlgen_cli.memory.replay import Prioritized, Replay, Uniform, Window, compress, decompress, smallest_type
from rlgen_cli.memory.rollouts import RolloutBuffer
from rlgen_cli.memory.sample_buffer import SampleBuffer
from rlgen_cli.memory.sum_tree import SumTree
from rlgen_cli.memory.weighted_buffer import WeightedBuffer
from tests.conftest import session, small

CPU = torch.device("cpu")
LENGTHS = [3, 5, 7]
NUMBERED = Discrete(10_000)


class Counter(NamedTuple):
    """A state that says which episode and which step it is."""

    episode: Tensor
    step: Tensor


def prioritized(priority_exponent: float, importance_exponent: float = 0.4) -> Any:
    return partial(Prioritized, priority_exponent=priority_exponent, importance_exponent=importance_exponent)


def replay_of(
    buffer_size: int,
    num_envs: int,
    sampling: Any = Uniform,
    whole_episodes: bool = False,
    env: object = None,
    action: ActionSpec = NUMBERED,
) -> Replay:
    """Of an environment, or of one that has nothing but an action space."""
    if env is None:
        env = SimpleNamespace(spec=SimpleNamespace(action=action))
    return Replay(
        env=cast(Env, env), num_envs=num_envs, device=CPU, buffer_size=buffer_size, sampling=sampling,
        whole_episodes=whole_episodes,
    )  # fmt: skip


def play(replay: Replay, calls: int, lengths: list[int]) -> None:
    """`calls` steps of environments whose episodes have fixed lengths; action = 100 · episode + step."""
    length = torch.tensor(lengths)
    episode, step = torch.zeros(len(lengths), dtype=torch.long), torch.zeros(len(lengths), dtype=torch.long)
    for _ in range(calls):
        action = 100 * episode + step
        done = step + 1 >= length
        before, after = Counter(episode, step), Counter(episode, step + 1)
        replay.add(Transition(before, action, action.float(), action.float() / 2, after, done))
        episode, step = episode + done, torch.where(done, 0, step + 1)


def frames_of(window: Window, batch: int, length: int) -> Counter:
    """The windows' states, [B, L + 1]."""
    return Counter(*(field.view(length + 1, batch).T for field in window.states))


def check_stretches(window: Window, batch: int, length: int, lengths: list[int]) -> None:
    """Actions, rewards and states of valid steps belong together and follow one another."""
    states, valid, terminated = frames_of(window, batch, length), window.valid.T, window.terminated.T
    here = 100 * states.episode[:, :-1] + states.step[:, :-1]
    assert torch.equal(here[valid], window.action.T[valid])  # the frame that the action was taken in
    assert torch.equal(here[valid].float() / 2, window.static_reward.T[valid])
    assert torch.equal(states.episode[:, 1:][valid], states.episode[:, :-1][valid])
    assert torch.equal(states.step[:, 1:][valid], states.step[:, :-1][valid] + 1)  # the frame it led to
    whole = torch.tensor(lengths)[window.start % len(lengths)].unsqueeze(1)
    ends = states.step[:, :-1] + 1 >= whole
    assert torch.equal(terminated[valid], ends[valid])
    assert torch.equal(valid, states.step[:, :-1] < whole)  # what is not valid is an episode's last frame
    assert (states.episode >= 0).all()


@pytest.mark.parametrize("priority", [0.0, 0.6])
@pytest.mark.parametrize(("calls", "length"), [(12, 1), (12, 3), (57, 1), (57, 4)])
def test_windows_are_true_stretches_of_time(calls, length, priority):
    replay = replay_of(60, 3, prioritized(priority) if priority else Uniform)
    play(replay, calls, LENGTHS)
    window = replay.sample(400, length, torch.Generator().manual_seed(0))
    assert window.valid.float().mean() > 0.6
    check_stretches(window, 400, length, LENGTHS)
    if priority:
        assert window.valid[0].all()  # a window never begins in a final frame


@pytest.mark.parametrize("sampling", [Uniform, prioritized(0.6)])
@pytest.mark.parametrize("calls", [8, 12, 57])
def test_windows_of_whole_episodes_begin_where_episodes_do(calls, sampling):
    replay = replay_of(60, 3, sampling, whole_episodes=True)
    play(replay, calls, LENGTHS)
    window = replay.sample(400, 7, torch.Generator().manual_seed(0))
    check_stretches(window, 400, 7, LENGTHS)
    states = frames_of(window, 400, 7)
    assert (states.step[:, 0] == 0).all()
    for env, length in enumerate(LENGTHS):
        steps = states.step[window.start % 3 == env]
        assert len(steps) > 0
        assert torch.equal(steps[:, : length + 1], torch.arange(length + 1).expand(len(steps), -1))
        if length < 7:  # behind an episode's last frame the next one begins
            assert (steps[:, length + 1] == 0).all()


def test_whole_episodes_are_equally_likely():
    replay = replay_of(60, 3, whole_episodes=True)
    play(replay, 57, LENGTHS)
    allowed = replay.allowed(torch.arange(60), 7)
    window = replay.sample(20_000, 7, torch.Generator().manual_seed(0))
    share = torch.bincount(window.start, minlength=60) / 20_000
    assert (share[~allowed] == 0).all()
    torch.testing.assert_close(
        share[allowed], torch.full_like(share[allowed], 1 / int(allowed.sum())), atol=0.02, rtol=0
    )


def test_old_frames_are_overwritten():
    replay = replay_of(40, 2)
    play(replay, 200, [4, 4])
    window = replay.sample(500, 1, torch.Generator().manual_seed(0))
    episodes = window.states.episode.view(2, 500)[:, window.valid[0]]
    assert episodes.min() >= 200 // 4 - 20 // 5 - 1


def test_windows_with_a_large_error_come_more_often():
    replay = replay_of(80, 2, prioritized(1.0, 1.0))
    play(replay, 30, [50, 50])
    rng = torch.Generator().manual_seed(0)
    first = replay.sample(64, 1, rng)
    replay.set_priority(torch.arange(80), torch.zeros(80))
    replay.set_priority(first.start[:1], torch.tensor([10.0]))
    again = replay.sample(200, 1, rng)
    share = (again.start == first.start[0]).float().mean()
    assert share > 0.9
    assert again.weight[again.start == first.start[0]].max() < again.weight.max() or share == 1


def test_priorities_by_hand():
    """Three windows with |TD errors| 3, 1 and 0, exponent ½: shares √3.001 : √1.001 : √.001; weights (3 · share)^−β."""
    replay = replay_of(4, 1, prioritized(0.5, 1.0))
    play(replay, 3, [9])
    replay.set_priority(torch.arange(3), torch.tensor([3.0, -1.0, 0.0]))
    window = replay.sample(20_000, 1, torch.Generator().manual_seed(0))
    mass = torch.tensor([3.001, 1.001, 0.001]).sqrt()
    share = mass / mass.sum()
    torch.testing.assert_close(torch.bincount(window.start) / 20_000, share, atol=0.02, rtol=0)
    weight = 1 / (3 * share)
    torch.testing.assert_close(window.weight, (weight / weight.max())[window.start])
    play(replay, 1, [9])
    assert cast(Prioritized, replay.sampling).windows.all_masses()[3].item() == pytest.approx(
        3.001**0.5
    )  # new: as the largest


def old_masses(replay: Replay, length: int, mass: Tensor) -> Tensor:
    """What each row's mass is, said anew from the rings of all environments: where the newest `length` frames begin, in
    final frames and where nothing was written there is none."""
    assert replay.store is not None
    frames = replay.store.read_all()
    row = torch.arange(replay.rows)
    env = row % replay.num_envs
    age = (replay.slot[env] - row // replay.num_envs) % replay.frames
    allowed = (age >= length) & (age <= replay.written[env]) & frames.acted
    if replay.whole_episodes:
        allowed &= frames.first
    return torch.where(allowed, mass, 0.0)


def tree_of(replay: Replay) -> SumTree:
    sampling = replay.sampling
    assert isinstance(sampling, Uniform | Prioritized)
    assert sampling.windows is not None
    return sampling.windows.tree


@pytest.mark.parametrize("whole_episodes", [False, True])
@pytest.mark.parametrize(("frames", "length"), [(9, 1), (9, 2), (12, 3), (12, 5), (17, 8), (6, 4), (6, 5)])
def test_a_tree_that_grew_holds_the_masses_of_all_rows(frames, length, whole_episodes):
    """After each step, whatever ends when, the masses are those that a look at every row gives, and all sums are those
    of a tree that is built at once, to the bit."""
    rng = torch.Generator().manual_seed(0)
    replay = replay_of(frames * 5, 5, prioritized(0.7), whole_episodes)
    priority, largest = torch.ones(replay.rows), 1.0
    for call in range(4 * frames):
        rows = replay.slot * 5 + torch.arange(5)
        zero, ends = torch.zeros(5), torch.rand(5, generator=rng) < (0.6 if call % 7 < 3 else 0.1)
        before, after = (Counter(*torch.full((2, 5), call + i)) for i in range(2))
        replay.add(Transition(before, zero.long(), zero, zero, after, ends))
        priority[rows] = largest
        if call > length:
            window = replay.sample(8, length, rng)
            tree, expected = tree_of(replay), old_masses(replay, length, priority**0.7)
            torch.testing.assert_close(tree.mass[: replay.rows].clamp(min=0), expected)
            if expected.sum() > 0:
                assert (expected[window.start] > 0).all()
                start = torch.cat([window.start, window.start[:3]])  # some rows twice
                error = 2 * torch.rand(replay.rows, generator=rng)[start]
                replay.set_priority(start, error)
                priority[start] = error + 1e-3
                largest = max(largest, float(priority[start].max()))
                torch.testing.assert_close(
                    tree.mass[: replay.rows].clamp(min=0), old_masses(replay, length, priority**0.7)
                )
            at_once = SumTree(replay.rows, CPU)
            at_once.mass.copy_(tree.mass)
            at_once.rebuild()
            assert torch.equal(at_once.sums, tree.sums)
            assert torch.equal(at_once.top, tree.top)


def test_another_length_of_windows_is_seen_at_once():
    replay = replay_of(60, 3, prioritized(0.5))
    play(replay, 30, LENGTHS)
    for length in (1, 4, 2):
        replay.sample(8, length, torch.Generator().manual_seed(0))
        expected = old_masses(replay, length, torch.ones(60))
        assert torch.equal(tree_of(replay).mass[:60].clamp(min=0), expected)


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 64, 65, 1000])
def test_rows_are_drawn_by_their_share_exactly(rows, monkeypatch):
    """Points at even distances over whole masses find each row as often as its mass says."""
    rng = torch.Generator().manual_seed(rows)
    mass = torch.randint(-2, 5, (rows,), generator=rng)
    mass[int(torch.randint(rows, (1,), generator=rng))] = 3
    total = int(mass.clamp(min=0).sum())
    tree = SumTree(rows, CPU)
    tree.mass[:rows] = mass
    tree.rebuild()
    points = (torch.arange(total, dtype=torch.float64) + 0.5) / total
    monkeypatch.setattr(torch, "rand", lambda *_, **__: points.unsqueeze(0))
    found = torch.bincount(tree.draw(total, torch.Generator()), minlength=rows)
    assert torch.equal(found, mass.clamp(min=0))


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2.0**-53])
@pytest.mark.parametrize("place", range(9))
def test_nothing_without_mass_is_drawn_at_the_borders(uniform, place, monkeypatch):
    tree = SumTree(9, CPU)
    tree.mass[place], tree.mass[8 - place] = 0.1, 0.3
    tree.rebuild()
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, uniform, dtype=torch.float64))
    assert int(tree.draw(1, torch.Generator())) in (place, 8 - place)


def test_sums_do_not_drift():
    """After many changes over many orders of magnitude the sums are those of the rows, to the bit."""
    rng, tree = torch.Generator().manual_seed(0), SumTree(500, CPU)
    for _ in range(300):
        rows = torch.randint(500, (40,), generator=rng)
        tree.mass[rows] = 10 ** (12 * torch.rand(500, generator=rng)[rows] - 6)
        tree.refresh(rows)
    sums, top = tree.sums.clone(), tree.top.clone()
    tree.rebuild()
    assert torch.equal(tree.sums, sums)
    assert torch.equal(tree.top, top)
    torch.testing.assert_close(tree.top.sum(), tree.mass.double().sum())


def test_an_error_that_is_no_number_spoils_nothing():
    replay = replay_of(40, 2, prioritized(0.5))
    play(replay, 12, [4, 6])
    window = replay.sample(4, 1, torch.Generator().manual_seed(0))
    replay.set_priority(window.start, torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0]))
    play(replay, 1, [4, 6])
    window = replay.sample(64, 1, torch.Generator().manual_seed(1))
    assert window.weight.isfinite().all()
    assert window.valid.all()


def test_priorities_that_an_earlier_version_saved_are_read():
    replay, saved = (replay_of(40, 2, prioritized(0.5, 0.3)) for _ in range(2))
    play(saved, 9, [4, 6])
    state = saved.state_dict() | {"sampling": {"priority": torch.linspace(0.1, 3.0, 40)}}
    zero = torch.zeros(1)
    example = Counter(zero.long(), zero.long())
    replay.load_state_dict(state, Transition(example, zero.long(), zero, zero, example, zero.bool()))
    replay.sample(8, 2, torch.Generator().manual_seed(0))
    expected = old_masses(replay, 2, torch.linspace(0.1, 3.0, 40).sqrt())
    assert torch.equal(tree_of(replay).mass[:40].clamp(min=0), expected)
    assert float(cast(Prioritized, replay.sampling).largest) == pytest.approx(3.0**0.5)


def test_a_memory_too_small_is_refused():
    with pytest.raises(UserError, match=r"^buffer_size: must be at least 4 × num_envs = 32, got 10"):
        replay_of(10, 8)


class EveryType(NamedTuple):
    """A state of every type and of several shapes, a field of nothing among them."""

    bool_: Tensor
    uint8: Tensor
    int8: Tensor
    int16: Tensor
    int32: Tensor
    int64: Tensor
    float16: Tensor
    bfloat16: Tensor
    float32: Tensor
    float64: Tensor
    nothing: Tensor


def every_type(n: int, rng: torch.Generator) -> EveryType:
    def numbers(*shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=rng) * 40

    return EveryType(
        numbers(3) > 0, numbers(2, 2).abs().to(torch.uint8), numbers(1).to(torch.int8), numbers(5).to(torch.int16),
        numbers().to(torch.int32), numbers().long() * 2**40, numbers(3).half(), numbers(3).bfloat16(), numbers(2, 3),
        numbers().double(), numbers(0),
    )  # fmt: skip


def bits(x: Tensor) -> Tensor:
    """As whole numbers, so that what is no number equals itself, too."""
    return x.contiguous().view(torch.uint8) if x.dim() else x


@pytest.mark.parametrize("sampling", [Uniform, prioritized(0.6)])
@pytest.mark.parametrize("calls", [0, 3, 40])
def test_a_replay_is_saved_and_loaded_to_the_bit(calls, sampling, tmp_path):
    rng, example = torch.Generator().manual_seed(0), every_type(1, torch.Generator().manual_seed(1))

    def transition(n: int) -> Transition:
        action, reward = torch.rand(n, 2, generator=rng), torch.randn(n, generator=rng)
        reward[0] = torch.nan
        ends = torch.rand(n, generator=rng) < 0.3
        return Transition(every_type(n, rng), action, reward, reward, every_type(n, rng), ends)

    def advance(replay: Replay) -> list[Tensor]:
        """The next two steps and a batch from them."""
        rng.manual_seed(7)
        for _ in range(2):
            replay.add(transition(4))
        window = replay.sample(16, 2, torch.Generator().manual_seed(3))
        replay.set_priority(window.start, torch.arange(16.0))
        return [*window.states, *window[1:], *replay.sample(16, 2, torch.Generator().manual_seed(4)).states]

    replay, other = (replay_of(60, 4, sampling, action=Continuous(2)) for _ in range(2))
    for _ in range(calls):
        replay.add(transition(4))
    checkpoint.save(tmp_path / "step_1", {"training": {"replay": replay.state_dict()}})
    saved = checkpoint.load(tmp_path / "step_1", "training", "cpu")["replay"]
    zero = torch.zeros(1)
    other.load_state_dict(saved, Transition(example, torch.zeros(1, 2), zero, zero, example, zero.bool()))
    assert replay.calls == other.calls == calls
    for one, two in zip(advance(replay), advance(other), strict=True):
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert torch.equal(bits(one), bits(two))


@pytest.mark.parametrize(("frames", "n"), [(1, 1), (1, 3), (7, 1), (5, 3)])
def test_compression_is_exact(frames, n):
    for field in every_type(frames * n, torch.Generator().manual_seed(0)):
        back = decompress(compress(field, frames), field[:1], frames * n, frames)
        assert back.dtype == field.dtype
        assert back.shape == field.shape
        assert torch.equal(bits(back), bits(field))


@pytest.mark.parametrize("kept", [["float32"], ["bool_"], ["uint8", "int64"], ["bool_", "int16", "nothing"], None])
def test_records_hold_every_type_to_the_bit(kept):
    """Whichever types stand side by side, in narrow and in wide records, and in as few bytes as they need."""

    def of(tree: EveryType) -> dict[str, Tensor]:
        fields = tree._asdict() | {"wide": torch.randn(len(tree.int32), 90, generator=rng)} if kept is None else None
        return fields or {name: getattr(tree, name) for name in kept}

    rng = torch.Generator().manual_seed(0)
    one, two, three = (of(every_type(4, rng)) for _ in range(3))
    records = Records(one, rows=20)
    records.write(torch.tensor([0, 19, 3, 4, 5, 6, 7, 11]), one, two)
    records.write(torch.tensor([8, 9, 10, 12, 5, 6, 7, 11]), three, one)
    expected = {0: (one, 0), 19: (one, 1), 3: (one, 2), 8: (three, 0), 12: (three, 3), 5: (one, 0), 11: (one, 3)}
    found = records.read(torch.tensor(list(expected)))
    for name, field in one.items():
        assert found[name].dtype == field.dtype
        assert torch.equal(bits(found[name]), bits(torch.stack([tree[name][row] for tree, row in expected.values()])))
    least = sum(8 * field[0].nbytes if field.dtype != torch.bool else field[0].numel() for field in one.values())
    assert least <= 8 * records.width < least + 8 * (8 if records.width >= 256 else 1)
    again = Records(one, rows=20)
    again.write_all(records.read_all())
    assert torch.equal(again.bytes, records.bytes)
    if "bool_" in one:
        assert torch.equal(records.bools(torch.tensor([8, 19])), torch.stack([three["bool_"][0], one["bool_"][1]]))


CANVASES = {
    "one bit": ["env.brush.line=pixel"],
    "four bits": ["env.brush.line=pixel", "env.colours=16"],
    "colours of the data": ["env.brush.line=pixel", "env.channels=3", "env.colours=8"],
    "not packed": ["brush=stroke"],
}


@pytest.mark.parametrize("words", CANVASES.values(), ids=CANVASES.keys())
def test_frames_of_a_canvas_come_back_as_they_were(words):
    """Packed and unpacked, each sampled frame is the one that was seen, and its successor what followed."""
    run = session(*small("agent=random"), *words, "env.noise=1")
    env, rng = run.envs["train"], run.streams["env"]
    assert isinstance(env, PacksStates)
    replay, state = replay_of(120, 4, env=env), env.reset(4, rng)
    seen: dict[tuple[float, int], list[Tensor]] = {}  # an episode is known by its noise
    for call in range(23):
        action = env.spec.action.sample(4, rng, CPU)
        after, zero = env.step(state, action), torch.zeros(4)
        for kept in (state, after):
            seen |= {(kept.noise[i].item(), int(kept.step[i])): [field[i] for field in kept] for i in range(4)}
        replay.add(Transition(state, action, zero, zero, after, env.done(after)))
        state = after if call % 6 < 5 else env.reset(4, rng)
    window = replay.sample(200, 3, rng)
    assert window.states.canvas.dtype == torch.uint8
    for i, (noise, step) in enumerate(zip(window.states.noise[:, 0], window.states.step, strict=True)):
        as_seen = seen[noise.item(), int(step)]
        assert all(torch.equal(field[i], kept) for field, kept in zip(window.states, as_seen, strict=True))
    steps, noise = window.states.step.view(4, 200), window.states.noise.view(4, 200)
    assert torch.equal(steps[1:][window.valid], steps[:-1][window.valid] + 1)
    assert torch.equal(noise[1:][window.valid], noise[:-1][window.valid])


def test_a_drawn_canvas_is_small_in_memory_and_on_the_disk():
    """28 × 28 pixels of two colours: 98 bytes a frame instead of 784, and far less where strokes follow each other."""
    run = session(
        "agent=random", "threads=1", "num_envs=4", "env.max_steps=24", "data.per_class=4", "env.brush.line=pixel"
    )
    env, rng = run.envs["train"], run.streams["env"]
    replay, state = replay_of(400, 4, env=env), env.reset(4, rng)
    for step in range(100):
        action = env.spec.action.sample(4, rng, CPU)
        after, zero = env.step(state, action), torch.zeros(4)
        replay.add(Transition(state, action, zero, zero, after, env.done(after)))
        state = after if step % 24 < 23 else env.reset(4, rng)
    assert (state.canvas > 0).any()
    raw = 400 * 784
    assert len(replay.state_dict()["store"]["state"]["canvas"]) < raw / 40


def allocated(replay: Replay) -> int:
    """Bytes of all tensors that a replay holds, however deep."""
    found: dict[int, int] = {}

    def visit(value: object) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, list | tuple):
            for part in value:
                visit(part)
        elif type(value).__module__.startswith("rlgen_cli.memory"):
            for part in vars(value).values():
                visit(part)

    visit(replay)
    return sum(found.values())


PEN = ["brush=pen", "env.brush.line=pixel"]


@pytest.mark.parametrize(
    ("words", "sampling", "limit"),
    [
        (PEN, Uniform, 0.15), (PEN, prioritized(0.5), 0.16), ([*PEN, "env.size=16"], Uniform, 0.2),
        ([*PEN, "env.size=16"], prioritized(0.5), 0.22), (["brush=pixel", "env.size=16"], Uniform, 0.2),
    ],
)  # fmt: skip
def test_a_frame_of_two_colours_takes_a_fifth_of_a_byte_a_pixel(words, sampling, limit):
    """Everything that grows with the buffer counted: state, action, reward, flags, and what sampling keeps."""
    run = session("agent=random", "threads=1", "num_envs=4", "data.per_class=4", *words)
    env, rng = run.envs["train"], run.streams["env"]
    state = env.reset(4, rng)
    action, zero = env.spec.action.sample(4, rng, CPU), torch.zeros(4)
    after = env.step(state, action)
    taken = []
    for buffer_size in (4_000, 40_000):
        replay = replay_of(buffer_size, 4, sampling, env=env)
        for _ in range(4):
            replay.add(Transition(state, action, zero, zero, after, env.done(after)))
        replay.sample(8, 1, rng)
        taken.append(allocated(replay))
        assert taken[-1] >= replay.bytes_with(state) > 0.8 * taken[-1]
    assert (taken[1] - taken[0]) / 36_000 <= limit * env.spec.picture().high * env.spec.picture().wide


@pytest.mark.parametrize(
    ("action", "stored"),
    [
        (Discrete(256), torch.uint8), (Discrete(257), torch.int16), (Discrete(2**15), torch.int16),
        (Discrete(2**15 + 1), torch.int32), (Discrete(2**31 + 1), torch.int64), (Factored((2, 300)), torch.int16),
        (Continuous(3), None), (Mixed(Factored((2,)), Continuous(1)), None),
    ],
)  # fmt: skip
def test_actions_are_kept_in_the_smallest_type(action, stored):
    assert smallest_type(action) == stored
    rng = torch.Generator().manual_seed(0)
    replay, state, zero = replay_of(16, 4, action=action), Counter(*torch.zeros(2, 4)), torch.zeros(4)
    taken = action.sample(4, rng)
    if isinstance(action, Discrete):
        taken[0] = action.n - 1
    for _ in range(3):
        replay.add(Transition(state, taken, zero, zero, state, zero.bool()))
    window = replay.sample(32, 1, rng)
    assert window.action.dtype == taken.dtype
    assert torch.equal(window.action[0], taken[window.start % 4])


def test_a_segment_knows_what_followed():
    rollout = RolloutBuffer(2)
    env, rng = session("env=tiny", "agent=random", "threads=1").envs["train"], torch.Generator().manual_seed(0)
    first = env.reset(3, rng)
    second = env.step(first, torch.zeros(3, dtype=torch.long))
    third = env.step(second, torch.ones(3, dtype=torch.long))
    zero, never = torch.zeros(3), torch.zeros(3, dtype=torch.bool)
    for before, after in ((first, second), (second, third)):
        assert not rollout.full
        rollout.add(Transition(before, zero.long(), zero, zero, after, never))
    restored = RolloutBuffer(2)
    assert rollout.newest is not None
    restored.load_state_dict(rollout.state_dict(), rollout.newest)
    segment = restored.take()
    assert rollout.full
    assert not restored.full
    following, carry = segment.following()
    assert torch.equal(following.canvas, torch.stack([second.canvas, third.canvas]))
    assert carry is None


def test_segments_overlap_by_as_many_steps_as_they_are_told():
    def add(rollout: RolloutBuffer, numbers: range) -> None:
        for number in numbers:
            at, ends = torch.tensor([number]), torch.tensor([number % 4 == 3])
            rollout.add(Transition(Counter(at, at), at, at.float(), at.float(), Counter(at + 1, at + 1), ends))

    rollout = RolloutBuffer(3, overlap=2)
    add(rollout, range(3))
    assert rollout.full
    assert rollout.take().action.flatten().tolist() == [0, 1, 2]
    assert rollout.old == 2
    assert not rollout.full
    add(rollout, range(3, 6))
    restored = RolloutBuffer(3, overlap=2)
    assert rollout.newest is not None
    restored.load_state_dict(rollout.state_dict(), rollout.newest)
    assert restored.full
    segment = restored.take()
    assert segment.action.flatten().tolist() == [1, 2, 3, 4, 5]
    assert segment.starts().flatten().tolist() == [False, False, False, True, False]
    assert segment.last.step.tolist() == [6]
    assert restored.old == 2


def test_only_finished_samples_are_kept_and_the_newest_drawn():
    memory, rng = SampleBuffer(3, (1,), torch.float, CPU), torch.Generator().manual_seed(0)
    for i in range(0, 8, 2):  # of 0 … 7, the even ones are finished
        rows = torch.tensor([[float(i)], [float(i + 1)]])
        memory.add(rows, torch.tensor([i, i + 1]), torch.tensor([True, False]))
    assert int(memory.count) == 3
    restored = SampleBuffer(3, (1,), torch.float, CPU)
    restored.load_state_dict(memory.state_dict())
    for buffer in (memory, restored):
        rows, labels = buffer.draw(torch.full((200,), 2), rng)
        assert set(rows.flatten().tolist()) == {4.0, 6.0}
        assert torch.equal(rows.flatten().long(), labels)
        rows, _ = buffer.draw(buffer.count.expand(200), rng)
        assert set(rows.flatten().tolist()) == {2.0, 4.0, 6.0}


class Pair(NamedTuple):
    """A row of a tree."""

    one: Tensor
    two: Tensor


def test_rows_are_drawn_by_their_weights_and_the_oldest_make_room():
    buffer = WeightedBuffer(3, Pair(torch.zeros(1), torch.zeros(1, 2)))
    for first in (0, 2, 4):  # of 0 … 5, all but 1 and 5 are wanted
        one = torch.tensor([float(first), first + 1.0])
        wanted = torch.tensor([True, first == 2])
        buffer.add(Pair(one, one.unsqueeze(1).expand(-1, 2)), (one + 1).log(), wanted)
    assert buffer.newest(2, 0).one.tolist() == [4.0, 3.0]
    assert buffer.newest(1, 2).one.tolist() == [2.0]
    assert float(buffer.effective_size()) == pytest.approx(12**2 / (3**2 + 4**2 + 5**2))
    assert float(buffer.log_mean_weight().exp()) == pytest.approx(4.0)
    again = WeightedBuffer(3, Pair(torch.zeros(1), torch.zeros(1, 2)))
    again.load_state_dict(buffer.state_dict())
    for ring in (buffer, again):
        drawn = ring.draw(6000, torch.Generator().manual_seed(0))
        share = torch.bincount(drawn.one.long(), minlength=5) / 6000
        assert torch.allclose(share, torch.tensor([0, 0, 3, 4, 5]) / 12, atol=0.03)
        assert torch.equal(drawn.one, drawn.two[:, 1])
