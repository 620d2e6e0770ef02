"""Weights in 8 bits: the products are those of the rounded weights, whatever one row or number is like."""

import gc
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lalia.errors import ConfigError
from lalia.layouts import Flat
from lalia.lm import Linear as Head
from lalia.lm import Lookup, Sampler, Sampling, SpeechLM, Transformer, collect
from lalia.nn import int8
from lalia.nn.compact import CompactLinear
from lalia.nn.int8 import Int8Rows, quantize_
from lalia.nn.lora import add_lora
from lalia.nn.packed import Linear
from lalia.streams import Discrete, StreamSpec, TokenSequence

GREEDY = Sampler(Sampling(temperature=0))


@pytest.fixture(params=["packed", "plain"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the product of FBGEMM where it is, and without."""
    if request.param == "plain":
        monkeypatch.setattr(int8, "_supported", lambda: False)
    return str(request.param)


def rounded(weight: Tensor) -> Tensor:
    """A weight of whole steps, row by row, in double precision."""
    out = weight.double().clone()
    for row in out:
        step = max(float(row.abs().max()), 1e-30) / 127
        row.copy_(torch.tensor([round(float(v) / step) * step for v in row]))
    return out


@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (2, 5, 24), (0, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_those_of_the_rounded_weight(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(37, 24), torch.randn(37), torch.randn(shape).to(dtype)
    y = Int8Rows(weight).linear(x, bias)
    exact = F.linear(x.double(), rounded(weight), bias.double())
    assert y.shape == exact.shape
    assert y.dtype == dtype
    assert torch.allclose(y.double(), exact, atol=1e-3, rtol=2**-7 if dtype == torch.bfloat16 else 0)


def test_rows_and_inputs_that_stand_out_harm_no_others() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(16, 32), torch.randn(4, 32)
    weight[3] *= 1e4
    weight[4] = 0
    x[1] *= 1e5
    x[2] = 0
    x[3, 7] = 1e3
    exact = F.linear(x.double(), weight.double())
    error = (Int8Rows(weight).linear(x).double() - exact).abs()
    # An error of half a step in every weight of the row is the most there can be; then that of 15 bits.
    steps = weight.abs().amax(dim=1).double() / 127
    most = x.abs().sum(dim=1)[:, None].double() * steps / 2 + x.abs().amax(dim=1)[:, None] * 32 * 5 * steps / 200
    assert (error <= most + 1e-12).all()
    assert error[2].max() == 0
    assert error[:, 4].max() == 0


def lm(*, tied: bool = True) -> SpeechLM:
    torch.manual_seed(0)
    built: SpeechLM = SpeechLM.Config(
        layout=Flat("units"),
        inputs={"units": Lookup()},
        backbone=Transformer.Config(num_layers=2, num_heads=4, num_kv_heads=2, dim=32, ffn_dim=48),
        heads={"units": Head.Config(tied=tied)},
    ).build({"units": StreamSpec(kind=Discrete(40), frame_rate=None)})
    with torch.no_grad():
        for p in built.parameters():
            if p.ndim == 2:
                p.mul_(10)
    return built.eval()


def units(length: int) -> TokenSequence:
    ids = torch.randint(40, (1, 1, length), generator=torch.Generator().manual_seed(1))
    return TokenSequence(ids, torch.tensor([length]))


@pytest.mark.parametrize("tied", [True, False])
def test_answers_are_those_of_the_rounded_weights(tied: bool) -> None:
    small, plain = lm(tied=tied), lm(tied=tied)
    with torch.no_grad():
        for p in plain.parameters():
            if p.ndim == 2:
                p.copy_(rounded(p))
    quantize_(small)
    known = {"units": units(9)}
    assert torch.allclose(small.log_prob(known)["units"], plain.log_prob(known)["units"], atol=5e-3)
    answers = [
        collect(m.generate(known, sampler=GREEDY, max_steps=30))["units"].values.tolist() for m in (small, plain)
    ]
    assert answers[0] == answers[1]


@torch.inference_mode()
def test_step_by_step_is_all_at_once() -> None:
    model = lm()
    quantize_(model)
    grid = model.pack({"units": units(12)})
    state = model.init_state(1)
    parts = [model(grid.steps(0, 5), state)]
    parts += [model(grid.steps(s, s + 1), state, first=False) for s in range(5, 11)]
    assert torch.allclose(torch.cat(parts, dim=1), model(grid)[:, :12], atol=1e-3)


def test_the_weights_are_gone_and_cannot_be_saved() -> None:
    model = lm()
    held = [weakref.ref(p) for p in model.parameters() if p.ndim == 2]
    assert held
    quantize_(model)
    gc.collect()
    assert all(ref() is None for ref in held)
    with pytest.raises(ConfigError, match="Save the model before"):
        model.state_dict()


def test_other_layers_stay_and_an_adapter_is_refused() -> None:
    model = nn.Sequential(Linear(8, 8), nn.Linear(8, 8))
    plain = model[1]
    quantize_(model)
    assert isinstance(model[0], CompactLinear)
    assert model[1] is plain
    adapted = nn.Sequential(Linear(8, 8))
    add_lora(adapted, ("*",))
    with pytest.raises(ConfigError, match="Merge it"):
        quantize_(adapted)
