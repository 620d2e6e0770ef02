"""The Transformer with every mask: what it sees, alone and in a batch, at once and step by step."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from lalia.errors import ConfigError
from lalia.nn.masks import Mask, Sight
from lalia.nn.positions import RopeScaling, angles
from lalia.nn.transformer import Transformer
from lalia.streaming import RowStates

SMALL = Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=48, num_kv_heads=2)
CONFIGS = {
    "causal": SMALL,
    "window": replace(SMALL, window=5),
    "gpt2": replace(SMALL, positions="learned", context=32, norm="layer", activation="gelu_tanh", bias=True),
    "qk_norm": replace(SMALL, qk_norm=True, head_dim=16, rope_scaling=RopeScaling(factor=8.0, original_context=16)),
    "sinusoidal": replace(SMALL, positions="sinusoidal", norm="layer", window=4),
    "prefix": replace(SMALL, mask="prefix"),
    "block": replace(SMALL, mask="block", block_size=3),
    "block, window": replace(SMALL, mask="block", block_size=3, window=5),
    "pair": replace(SMALL, mask="pair"),
    "pair, learned": replace(SMALL, mask="pair", positions="learned", context=16),
    "pair, window": replace(SMALL, mask="pair", window=5),
}
STEPS = 12


def build(config: Transformer.Config) -> Transformer:
    torch.manual_seed(0)
    network: Transformer = config.build()
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(8.0) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return network.double().eval()


@pytest.fixture(params=CONFIGS)
def network(request: pytest.FixtureRequest) -> Transformer:
    return build(CONFIGS[request.param])


def inputs(steps: int = STEPS, rows: int = 3) -> Tensor:
    return torch.randn(rows, steps, 32, dtype=torch.double, generator=torch.Generator().manual_seed(steps))


def in_passes(network: Transformer, x: Tensor, passes: Sequence[int], prefix: Tensor | None = None) -> Tensor:
    state = network.init_state(len(x), capacity=2)
    parts = []
    for part in x.split(list(passes), dim=1):
        parts.append(network(part, state=state, prefix=prefix))
        assert network.config.window is None or state.capacity <= network.config.window
    return torch.cat(parts, dim=1)


@torch.no_grad()
@pytest.mark.parametrize("mask", get_args(Mask))
@pytest.mark.parametrize("window", [None, 4])
def test_a_step_depends_on_what_its_mask_shows(mask: Mask, window: int | None) -> None:
    # With two layers it is what the steps that it sees see too.
    config = replace(SMALL, mask=mask, block_size=3, window=window)
    network, x, prefix = build(config), inputs(8, 1), torch.tensor([5])
    at = torch.arange(8)[None]
    seen = config.sight.visible(at, at, prefix=prefix)[0].double()
    reach = (seen @ seen) > 0
    given_prefix = prefix if mask == "prefix" else None
    before = network(x, prefix=given_prefix)
    for t in range(8):
        changed = x.clone()
        changed[:, t] += 1
        moved = (network(changed, prefix=given_prefix) != before).any(-1)[0]
        assert torch.equal(moved, reach[:, t])


@torch.no_grad()
@pytest.mark.parametrize("passes", [[1] * STEPS, [STEPS], [3, 3, 6], [6, 1, 1, 1, 3], [9, 3], [3, 9]])
def test_in_passes_it_is_the_same(network: Transformer, passes: list[int]) -> None:
    x = inputs()
    if network.config.mask == "block" and any(sum(passes[:i]) % 3 for i in range(len(passes))):
        with pytest.raises(ConfigError, match="whole blocks"):
            in_passes(network, x, passes)
        return
    prefix = torch.tensor([1, 0, passes[0]]) if network.config.mask == "prefix" else None
    assert torch.allclose(in_passes(network, x, passes, prefix), network(x, prefix=prefix), atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
def test_rows_go_on_from_where_they_are(network: Transformer, apart: bool) -> None:
    x = inputs(15)
    offline = network(x[:, :12])
    rows = RowStates([network.init_state(1, capacity=1) for _ in range(3)])
    state = rows if apart else network.init_state(3, capacity=1)
    at = [0, 0, 0]
    last = 3 if network.config.mask == "block" else 1
    for steps in ([6, 3, 0], [3, 0, 3], [0, 3, 0], [3, 3, 3], [0, 0, last]):
        part = torch.stack([x[b, p : p + 3] if max(steps) == 3 else x[b, p : p + max(steps)] for b, p in enumerate(at)])
        y = network(part, torch.tensor(steps), state)
        for b, n in enumerate(steps):
            assert torch.allclose(y[b, :n], offline[b, at[b] : at[b] + n], atol=1e-10)
            at[b] += n
    position = torch.cat([row.position for row in rows.rows]) if apart else state.position  # type: ignore[union-attr]
    assert position.tolist() == at == [12, 9, 6 + last]


@torch.no_grad()
@pytest.mark.parametrize("mask", ["block", "full"])
def test_padding_is_hidden_from_steps_that_see_later_ones(mask: Mask) -> None:
    network = build(replace(SMALL, mask=mask, block_size=4))
    x, lengths = inputs(10), torch.tensor([10, 5, 0])
    y = network(x, lengths)
    assert torch.allclose(y[1, :5], network(x[1:2, :5])[0], atol=1e-10)
    x[1, 5:] += 1
    assert torch.equal(network(x, lengths)[1, :5], y[1, :5])
    assert torch.isfinite(y).all()
    if mask == "block":
        state = network.init_state(3)
        first = network(x[:, :4], lengths.clamp(max=4), state)
        rest = network(x[:2, 4:], torch.tensor([6, 1]), state.select(torch.tensor([0, 1])))
        assert torch.allclose(torch.cat([first[0], rest[0]]), y[0], atol=1e-10)
        assert torch.allclose(torch.cat([first[1], rest[1, :1]]), y[1, :5], atol=1e-10)


@torch.no_grad()
def test_a_session_of_any_length_keeps_the_same_memory() -> None:
    network = build(replace(SMALL, window=6))
    x = inputs(60, 2)
    offline, state = network(x), network.init_state(2)
    assert state.capacity == 6
    for t in range(60):
        y = network(x[:, t : t + 1], state=state)
        assert torch.allclose(y[:, 0], offline[:, t], atol=1e-10)
        assert {tensor.shape for tensor in (*state.keys, *state.values)} == {(2, 2, 6, 8)}
    # Days later: neither the state nor the angles of the positions have grown.
    later = replace(state, position=state.position + 50_000_000)
    network(x[:, :3], state=later)
    assert later.capacity == 6
    assert network._table is not None
    assert len(network._table[0]) <= 256


@torch.no_grad()
def test_angles_stay_exact_for_days() -> None:
    # Two steps are turned against each other as far as they are apart, wherever they are.
    cos, sin = angles(torch.tensor([0, 7, 10_000_000, 10_000_007]), 16, 10000.0)
    near = cos[0] * cos[1] + sin[0] * sin[1]
    far = cos[2] * cos[3] + sin[2] * sin[3]
    assert torch.allclose(near, far, atol=1e-6)


@torch.no_grad()
def test_the_two_of_a_pair_are_told_apart_by_their_side() -> None:
    network = build(replace(SMALL, mask="pair"))
    x = inputs(8).repeat_interleave(2, dim=1)
    y = network(x)
    assert not torch.allclose(y[:, 2::2], y[:, 3::2])
    for layer in network.layers:
        layer.attention.side.zero_()
    y = network(x)
    assert torch.allclose(y[:, ::2], y[:, 1::2], atol=1e-10)


def test_padding_gives_no_nan_gradients() -> None:
    network = build(replace(SMALL, mask="full")).train()
    network(inputs(4), torch.tensor([4, 2, 0]))[0].sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="a window of 0"):
        replace(SMALL, window=0)
    network = build(replace(SMALL, mask="full"))
    with pytest.raises(ConfigError, match="without a state"):
        network(inputs(), state=network.init_state(3))
    assert Sight().ends_late is False
