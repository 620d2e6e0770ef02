"""The dual tower: two channels, the same weights, each sees what the other has said."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.nn.dual_tower import DualTower
from lalia.nn.layers import INIT_STD
from lalia.nn.positions import sinusoids
from lalia.nn.transformer import Transformer
from lalia.streaming import reset_rows, select_rows

SMALL = DualTower.Config(num_layers=3, cross_layers=2, num_heads=4, dim=32, ffn_dim=48)
MODERN: dict[str, Any] = {"positions": "rope", "norm": "rms", "activation": "swiglu", "bias": False}
CONFIGS = {
    "dgslm": SMALL,
    "rope": replace(SMALL, **MODERN, num_kv_heads=2, qk_norm=True),
    "window": replace(SMALL, **MODERN, window=5),
    "learned": replace(SMALL, positions="learned", context=16),
}


def build(config: DualTower.Config) -> DualTower:
    torch.manual_seed(0)
    tower: DualTower = config.build()
    with torch.no_grad():
        for p in tower.parameters():
            p.mul_(8.0) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return tower.double().eval()


@pytest.fixture(params=CONFIGS)
def tower(request: pytest.FixtureRequest) -> DualTower:
    return build(CONFIGS[request.param])


def sound(steps: int, rows: int = 2, dim: int = 32) -> Tensor:
    return torch.randn(rows, 2, steps, dim, dtype=torch.double, generator=torch.Generator().manual_seed(steps))


def heads(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    return list(F.linear(x, weight, bias).unflatten(-1, (4, 8)).unbind(-2))


def attend(q: list[Tensor], k: list[Tensor], v: list[Tensor]) -> Tensor:
    """One head after the other, one step after the other."""
    out = []
    for i in range(4):
        steps = []
        for t in range(len(q[i])):
            weights = (k[i][: t + 1] @ q[i][t] / 8**0.5).softmax(0)
            steps.append(weights @ v[i][: t + 1])
        out.append(torch.stack(steps))
    return torch.cat(out, dim=-1)


def naive(tower: DualTower, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """dGSLM's network from its description, channel by channel, for one row."""
    p = dict(tower.named_parameters())
    place = INIT_STD * sinusoids(torch.arange(len(a)), 32).double()
    xs = [a + place, b + place]
    for i in range(3):

        def norm(x: Tensor, name: str, prefix: str = f"layers.{i}.") -> Tensor:
            return F.layer_norm(x, (32,), p[f"{prefix}{name}.weight"], p[f"{prefix}{name}.bias"])

        def linear(x: Tensor, name: str, prefix: str = f"layers.{i}.") -> Tensor:
            return F.linear(x, p[f"{prefix}{name}.weight"], p[f"{prefix}{name}.bias"])

        new = []
        for x in xs:
            weights = p[f"layers.{i}.attention.qkv.weight"].split(32)
            biases = p[f"layers.{i}.attention.qkv.bias"].split(32)
            q, k, v = (heads(norm(x, "attention_norm"), w, c) for w, c in zip(weights, biases, strict=True))
            new.append(x + linear(attend(q, k, v), "attention.out"))
        xs = new
        if i > 0:
            new = []
            for x, other in (xs, xs[::-1]):
                q = heads(
                    linear(norm(x, "cross_attention_norm"), "cross_attention.q"), torch.eye(32).double(), 0 * x[0]
                )
                weights = p[f"layers.{i}.cross_attention.kv.weight"].split(32)
                biases = p[f"layers.{i}.cross_attention.kv.bias"].split(32)
                k, v = (heads(other, w, c) for w, c in zip(weights, biases, strict=True))
                new.append(x + linear(attend(q, k, v), "cross_attention.out"))
            xs = new
        xs = [
            x + linear(linear(norm(x, "feed_forward_norm"), "feed_forward.up").relu(), "feed_forward.down") for x in xs
        ]
    a, b = (F.layer_norm(x, (32,), p["norm.weight"], p["norm.bias"]) for x in xs)
    return a, b


@torch.no_grad()
def test_it_is_the_network_of_the_paper() -> None:
    tower, x = build(SMALL), sound(6)
    y = tower(x)
    for row in range(2):
        a, b = naive(tower, x[row, 0], x[row, 1])
        assert torch.allclose(y[row], torch.stack([a, b]), atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 13, [13], [4, 1, 1, 5, 2], [1, 7, 5]])
def test_streaming_equals_offline(tower: DualTower, chunks: list[int]) -> None:
    x = sound(13)
    state = tower.init_state(2, capacity=2)
    parts = [tower(part, state=state) for part in x.split(chunks, dim=2)]
    assert torch.allclose(torch.cat(parts, dim=2), tower(x), atol=1e-10)
    assert state.position.tolist() == [13, 13]
    if tower.config.window is not None:
        assert state.capacity == tower.config.window


@torch.no_grad()
def test_rows_go_on_from_where_they_are(tower: DualTower) -> None:
    x = sound(12, rows=3)
    offline = tower(x)
    state = tower.init_state(3)
    tower(x[:, :, :6], torch.tensor([6, 2, 4]), state)
    rest = torch.stack([x[0, :, 6:9], x[1, :, 2:5], x[2, :, 4:7]])
    y = tower(rest, torch.tensor([3, 3, 1]), state)
    assert torch.allclose(y[0], offline[0, :, 6:9], atol=1e-10)
    assert torch.allclose(y[1], offline[1, :, 2:5], atol=1e-10)
    state = select_rows(state, torch.tensor([2, 1]))
    y = tower(torch.stack([x[2, :, 5:7], x[1, :, 5:7]]), state=state)
    assert torch.allclose(y[0], offline[2, :, 5:7], atol=1e-10)
    assert torch.allclose(y[1], offline[1, :, 5:7], atol=1e-10)
    state = reset_rows(state, tower.init_state(2), torch.tensor([True, False]))
    y = tower(torch.stack([x[0, :, :1], x[1, :, 7:8]]), state=state)
    assert torch.allclose(y[0], offline[0, :, :1], atol=1e-10)
    assert torch.allclose(y[1], offline[1, :, 7:8], atol=1e-10)


@torch.no_grad()
def test_a_channel_hears_the_other_up_to_now(tower: DualTower) -> None:
    x = sound(8)
    before = tower(x)
    for t in range(8):
        changed = x.clone()
        changed[:, 1, t] += 1
        moved = (tower(changed) != before).any(-1)
        for channel in range(2):
            assert not moved[:, channel, :t].any()
            assert moved[:, channel, t].all()


@torch.no_grad()
def test_channels_are_treated_alike(tower: DualTower) -> None:
    x = sound(7)
    assert torch.allclose(tower(x.flip(1)), tower(x).flip(1), atol=1e-12)


@torch.no_grad()
def test_without_cross_layers_each_channel_is_alone() -> None:
    config = replace(SMALL, cross_layers=0)
    tower = build(config)
    shape = {f.name: getattr(config, f.name) for f in fields(Transformer.Config)}
    alone: Transformer = Transformer.Config(**shape).build()
    alone.double().load_state_dict(tower.state_dict())
    x = sound(7)
    assert torch.allclose(tower(x)[:, 1], alone(x[:, 1]), atol=1e-12)


def test_every_parameter_is_trained() -> None:
    tower = build(CONFIGS["rope"]).train()
    tower(sound(5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tower.parameters())


def test_its_published_size() -> None:
    with torch.device("meta"):
        tower = DualTower.Config().build()
    # Per layer 12 D^2 of a Transformer, and 4 D^2 more of the cross-attention in four of them.
    matrices = sum(p.numel() for p in tower.parameters() if p.ndim > 1)
    assert matrices == (6 * 12 + 4 * 4) * 512**2
    tiny = DualTower.Config().tiny()
    assert (tiny.num_layers, tiny.cross_layers) == (3, 2)
    assert tiny.dim <= 128


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="cross_layers at most"):
        replace(SMALL, cross_layers=4)
    with pytest.raises(ConfigError, match="Set 'causal'"):
        replace(SMALL, mask="pair")
