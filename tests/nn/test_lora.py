"""Adapters: nothing at first, all that is trained, and part of the weights in the end."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.nn.lora import Lora, LoraLinear, add_lora, merge_lora, merged
from lalia.nn.transformer import Transformer

ATTENTION = ("*.attention.*",)


def network() -> Transformer:
    torch.manual_seed(0)
    return Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=48, num_kv_heads=2).build()


def inputs() -> Tensor:
    return torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))


def adapted(rank: int = 3, dropout: float = 0.0) -> Transformer:
    """A network whose adapters say something."""
    made = network()
    add_lora(made, ATTENTION, rank, alpha=6.0, dropout=dropout)
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.endswith("lora_b"):
                p.normal_(generator=torch.Generator().manual_seed(1))
    return made


def test_at_first_it_changes_nothing() -> None:
    plain, made = network(), network()
    names = add_lora(made, ATTENTION, rank=3)
    assert names == [f"layers.{i}.attention.{side}" for i in range(2) for side in ("qkv", "out")]
    assert torch.equal(made(inputs()), plain(inputs()))
    with torch.inference_mode():
        assert torch.equal(made(inputs()), plain(inputs()))


def test_names_stay_and_adapters_stand_beside() -> None:
    before, after = network().state_dict(), adapted().state_dict()
    assert all(torch.equal(after[name], t) for name, t in before.items())
    new = {name: tuple(t.shape) for name, t in after.items() if name not in before}
    assert new == {
        f"layers.{i}.attention.{side}": shape
        for i in range(2)
        for side, shape in (
            ("qkv.lora_a", (3, 32)),
            ("qkv.lora_b", (64, 3)),
            ("out.lora_a", (3, 32)),
            ("out.lora_b", (32, 3)),
        )
    }


def test_it_is_the_sum_of_the_paper() -> None:
    layer = nn.Sequential(nn.Linear(5, 4))
    add_lora(layer, ["0"], rank=2, alpha=6.0)
    part = layer[0]
    assert isinstance(part, LoraLinear)
    with torch.no_grad():
        part.lora_b.normal_()
    x = torch.randn(3, 5)
    whole = part.weight + 6.0 / 2 * part.lora_b @ part.lora_a
    assert torch.allclose(layer(x), F.linear(x, whole, part.bias), atol=1e-6)


def test_only_adapters_learn_where_the_rest_is_frozen() -> None:
    made = adapted()
    for name, p in made.named_parameters():
        p.requires_grad_("lora_" in name)
    made(inputs()).square().sum().backward()
    for name, p in made.named_parameters():
        assert (p.grad is not None and bool(p.grad.any())) == ("lora_" in name)


@torch.no_grad()
def test_merged_it_computes_the_same() -> None:
    made = adapted()
    before = made(inputs())
    assert not torch.allclose(before, network()(inputs()), atol=1e-2)
    merge_lora(made)
    assert torch.allclose(made(inputs()), before, atol=1e-5)
    assert made.state_dict().keys() == network().state_dict().keys()
    assert not any(isinstance(m, LoraLinear) for m in made.modules())
    assert {type(m) for m in made.modules()} == {type(m) for m in network().modules()}


@torch.no_grad()
def test_merged_for_a_while() -> None:
    made, reference = adapted(), adapted()
    merge_lora(reference)
    parameters = dict(made.named_parameters())
    state = {name: t.clone() for name, t in made.state_dict().items()}
    with torch.inference_mode():
        before = made(inputs())
    with merged(made):
        assert made.state_dict().keys() == reference.state_dict().keys()
        assert all(torch.equal(t, reference.state_dict()[name]) for name, t in made.state_dict().items())
    assert dict(made.named_parameters()).keys() == parameters.keys()
    assert all(p is parameters[name] for name, p in made.named_parameters())
    assert all(torch.equal(t, state[name]) for name, t in made.state_dict().items())
    with torch.inference_mode():
        # What is packed for inference follows the weights.
        assert torch.equal(made(inputs()), before)


def test_dropout_is_for_training_alone() -> None:
    made = adapted(dropout=0.5)
    torch.manual_seed(0)
    assert not torch.equal(made(inputs()), made(inputs()))
    made.eval()
    assert torch.equal(made(inputs()), made(inputs()))
    assert torch.allclose(made(inputs()), adapted().eval()(inputs()))


def test_an_adapted_network_is_copied_whole() -> None:
    made = adapted()
    copied = copy.deepcopy(made)
    merge_lora(copied)
    assert torch.allclose(copied(inputs()), made(inputs()), atol=1e-5)
    assert any(isinstance(m, LoraLinear) for m in made.modules())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'\*q_proj' for an adapter. There are layers"):
        add_lora(network(), ["*.qkv", "*q_proj"])
    with pytest.raises(ConfigError, match="rank 0"):
        Lora(rank=0)
    tiny = Lora(rank=16, alpha=32.0).tiny()
    assert (tiny.rank, tiny.alpha) == (4, 8.0)


def test_it_is_what_peft_computes() -> None:
    peft = pytest.importorskip("peft")
    made = adapted()
    theirs = peft.inject_adapter_in_model(
        peft.LoraConfig(r=3, lora_alpha=6.0, target_modules=["qkv", "out"]), network()
    ).eval()
    with torch.no_grad():
        for name, part in made.named_modules():
            if isinstance(part, LoraLinear):
                other = theirs.get_submodule(name)
                other.lora_A["default"].weight.copy_(part.lora_a)
                other.lora_B["default"].weight.copy_(part.lora_b)
        assert torch.allclose(made.eval()(inputs()), theirs(inputs()), atol=1e-5)
