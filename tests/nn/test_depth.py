"""The depth Transformer: code after code of one frame."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.nn.depth import DepthTransformer, StepLinear
from lalia.nn.kernels import rotate
from lalia.nn.positions import angles

K = 5
MOSHI = DepthTransformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=40)
CONFIGS = {
    "moshi": MOSHI,
    "schedule": replace(MOSHI, schedule=(0, 1, 2, 2, 2)),
    "learned": replace(MOSHI, weights_per_step=False, positions="learned", final_norm=True),
    "rope": replace(MOSHI, weights_per_step=False, positions="rope"),
}


def build(config: DepthTransformer.Config) -> DepthTransformer:
    torch.manual_seed(0)
    network: DepthTransformer = config.build(in_dim=24, num_steps=K)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(8.0) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return network.double().eval()


@pytest.fixture(params=CONFIGS)
def network(request: pytest.FixtureRequest) -> DepthTransformer:
    return build(CONFIGS[request.param])


def frames(n: int = 3, steps: int = K) -> tuple[Tensor, Tensor, Tensor]:
    """A context, the codes, and what is beside the context first."""
    g = torch.Generator().manual_seed(n)
    shapes = ((n, 24), (n, steps - 1, 32), (n, 32))
    context, codes, first = (torch.randn(shape, dtype=torch.double, generator=g) for shape in shapes)
    return context, codes, first


def naive(network: DepthTransformer, context: Tensor, inputs: list[Tensor]) -> Tensor:
    """One frame [K, D] from the description, step by step, every step with the weights it has."""
    c = network.config
    p = dict(network.named_parameters())

    def linear(x: Tensor, name: str, k: int) -> Tensor:
        weight = p[f"{name}.weight"]
        which = 0 if len(weight) == 1 else k if c.schedule is None else c.schedule[k]
        return weight[which] @ x

    xs = [linear(context, "input", k) + inputs[k] for k in range(K)]
    if network.position_embedding is not None:
        xs = [x + network.position_embedding.weight[k] for k, x in enumerate(xs)]
    for i in range(c.num_layers):
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for k in range(K):
            name = f"layers.{i}"
            x = F.rms_norm(xs[k], (32,), p[f"{name}.attention_norm.weight"], c.norm_eps)
            q, key, value = linear(x, f"{name}.qkv", k).view(3, 4, 8)
            if c.positions == "rope":
                table = angles(torch.tensor(k), 8, c.rope_theta)
                q, key = rotate(q, *table), rotate(key, *table)
            keys.append(key)
            values.append(value)
            weights = (torch.stack(keys, 1) @ q[..., None] / 8**0.5).softmax(1)
            xs[k] = xs[k] + linear((weights * torch.stack(values, 1)).sum(1).flatten(), f"{name}.out", k)
            x = F.rms_norm(xs[k], (32,), p[f"{name}.feed_forward_norm.weight"], c.norm_eps)
            gate, value = linear(x, f"{name}.up", k).chunk(2)
            xs[k] = xs[k] + linear(F.silu(gate) * value, f"{name}.down", k)
    y = torch.stack(xs)
    return F.rms_norm(y, (32,), p["norm.weight"], c.norm_eps) if c.final_norm else y


@torch.no_grad()
def test_each_step_has_its_weights(network: DepthTransformer) -> None:
    context, codes, first = frames()
    y, bare = network(context, codes, first), network(context, codes)
    for n in range(3):
        wanted = naive(network, context[n], [first[n], *codes[n]])
        assert torch.allclose(y[n], wanted, atol=1e-10)
        assert torch.allclose(bare[n], naive(network, context[n], [0 * first[n], *codes[n]]), atol=1e-10)


@torch.no_grad()
def test_step_by_step_it_is_the_same(network: DepthTransformer) -> None:
    context, codes, first = frames()
    for start in (first, None):
        state = network.init_state(3)
        before = [start, *codes.unbind(1)]
        steps = [network.step(context, before[k], state) for k in range(K)]
        assert torch.allclose(torch.stack(steps, dim=1), network(context, codes, start), atol=1e-10)
    with pytest.raises(ConfigError, match="5 steps, not 6"):
        network.step(context, before[1], state)


@torch.no_grad()
def test_a_code_is_seen_by_the_steps_after_it(network: DepthTransformer) -> None:
    context, codes, first = frames()
    before = network(context, codes, first)
    for k in range(K - 1):
        changed = codes.clone()
        changed[:, k] += 1
        moved = (network(context, changed, first) != before).any(-1)
        assert moved[:, k + 1 :].all()
        assert not moved[:, : k + 1].any()
        # The first steps alone are the first steps of all.
        assert torch.allclose(network(context, codes[:, :k], first), before[:, : k + 1], atol=1e-10)


@torch.no_grad()
def test_frames_do_not_see_each_other(network: DepthTransformer) -> None:
    context, codes, first = frames()
    alone = network(context[1:2], codes[1:2], first[1:2])
    assert torch.allclose(network(context, codes, first)[1:2], alone, atol=1e-10)
    assert network(context[:0], codes[:0], first[:0]).shape == (0, K, 32)


def test_every_parameter_is_trained(network: DepthTransformer) -> None:
    # Queries of the first step have one key to look at, whatever they are: but they have their rows in a matrix.
    network.train()(*frames()).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    for module in network.modules():
        if isinstance(module, StepLinear):
            assert module.weight.grad is not None
            assert module.weight.grad.flatten(1).any(1).all()


def test_in_mixed_precision_too(network: DepthTransformer) -> None:
    network = network.float()
    context, codes, first = (x.float() for x in frames())
    exact = network(context, codes, first)
    with torch.autocast("cpu", torch.bfloat16):
        y = network(context, codes, first)
        state = network.init_state(3)
        step = network.step(context, first, state)
    assert torch.allclose(y.float(), exact, atol=0.2, rtol=0.2)
    assert torch.allclose(step.float(), exact[:, 0], atol=0.2, rtol=0.2)


def test_its_published_size() -> None:
    with torch.device("meta"):
        network: nn.Module = DepthTransformer.Config(ffn_dim=2816).build(in_dim=4096, num_steps=8)
    # Per step: the input, and in six layers four D^2 of attention and three D x 2816 of SwiGLU.
    matrices = 8 * (4096 * 1024 + 6 * (4 * 1024**2 + 3 * 1024 * 2816))
    assert sum(p.numel() for p in network.parameters()) == matrices + 6 * 2 * 1024
    tiny = DepthTransformer.Config().tiny()
    assert (tiny.dim, tiny.num_heads, tiny.num_layers) == (64, 4, 2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of num_heads"):
        replace(MOSHI, dim=33)
    with pytest.raises(ConfigError, match="weights_per_step=True"):
        replace(MOSHI, weights_per_step=False, schedule=(0, 0))
    with pytest.raises(ConfigError, match="for 3 steps, but there are 5"):
        replace(MOSHI, schedule=(0, 1, 2)).build(in_dim=24, num_steps=K)
    network = build(MOSHI)
    context, codes, _ = frames(steps=K + 1)
    with pytest.raises(ConfigError, match="5 steps, not 6"):
        network(context, codes)
