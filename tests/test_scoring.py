"""Several rows at once score as each does alone, with what they begin with alike computed once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from lalia.layouts import Flat, Layout, Parallel
from lalia.lm import Linear, Lookup, SpeechLM, Transformer
from lalia.model import scoring
from lalia.model.scoring import score, score_rows
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence

SMALL = Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=64, num_kv_heads=2, context=128)
SPECS = {
    "units": StreamSpec(kind=Discrete(30), frame_rate=25.0),
    "codes": StreamSpec(kind=Discrete(9, num_codebooks=3), frame_rate=25.0),
}
LAYOUTS: dict[str, Layout] = {
    "units": Flat("units"),
    "open": Flat("units", closed=False),
    "codebooks": Flat("codes"),
    "delays": Parallel(("codes",), delays=(0, 1, 2)),
}


def build(layout: Layout, backbone: Transformer.Config = SMALL) -> SpeechLM:
    torch.manual_seed(0)
    names = layout.streams
    config = SpeechLM.Config(
        layout=layout,
        backbone=backbone,
        inputs={n: Lookup() for n in names},
        heads={n: Linear.Config() for n in names},
    )
    lm: SpeechLM = config.build({n: SPECS[n] for n in names})
    with torch.no_grad():
        lm.start.normal_()
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return lm.double().eval()


def families(layout: Layout) -> list[Streams]:
    """Rows behind two prompts, in no order: some twice, some a part of others, some alone."""
    (name,) = layout.streams
    kind = SPECS[name].kind
    assert isinstance(kind, Discrete)
    generator = torch.Generator().manual_seed(0)

    def drawn(n: int) -> torch.Tensor:
        return torch.randint(kind.codebook_size, (kind.num_codebooks, n), generator=generator)

    one, other = drawn(24), drawn(30)
    parts = [
        *(torch.cat([one, drawn(n)], dim=1) for n in (5, 8, 1)),
        *(torch.cat([other[:, :m], drawn(n)], dim=1) for m, n in ((30, 4), (22, 6), (3, 9))),
        *(one, other, one, one[:, :20], drawn(1), drawn(0), drawn(40)),
    ]
    order = torch.randperm(len(parts), generator=generator).tolist()
    return [{name: TokenSequence(parts[i][None], torch.tensor([parts[i].shape[1]]))} for i in order]


@pytest.fixture
def steps_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each pass of a backbone takes."""
    counted: list[int] = []
    forward = Transformer.forward

    def count(self: Transformer, x: torch.Tensor, *args: object, **more: object) -> torch.Tensor:
        counted.append(x.shape[0] * x.shape[1])
        return forward(self, x, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "forward", count)
    return counted


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("most", [1, 64, 4096])
def test_at_once_as_alone(layout: Layout, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = build(layout)
    rows = [r for r in families(layout) if next(iter(r.values())).num_tokens or layout is not LAYOUTS["open"]]
    monkeypatch.setattr(scoring, "_CHAIN_STEPS", most)
    for one, row in zip(score_rows(lm, rows, specs=lm.specs), rows, strict=True):
        alone = score(lm, row, specs=lm.specs)
        assert one.log_probs == pytest.approx(alone.log_probs, abs=1e-9)
        assert one.starts == alone.starts
        assert one.end == pytest.approx(alone.end, abs=1e-9)


def test_single_precision_is_within_1e_5_nats() -> None:
    lm = build(LAYOUTS["units"]).float()
    rows = families(LAYOUTS["units"])
    for one, row in zip(score_rows(lm, rows, specs=lm.specs), rows, strict=True):
        assert one.mean == pytest.approx(score(lm, row, specs=lm.specs).mean, abs=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        lambda lm: lm,
        lambda lm: build(LAYOUTS["units"], replace(SMALL, window=8)),
        lambda lm: build(LAYOUTS["units"], replace(SMALL, context=20)),
    ],
    ids=["whole", "with a window", "longer than the context"],
)
def test_whatever_the_backbone(change: Callable[[SpeechLM], SpeechLM]) -> None:
    lm = change(build(LAYOUTS["units"]))
    rows = families(LAYOUTS["units"])
    for one, row in zip(score_rows(lm, rows, specs=lm.specs), rows, strict=True):
        alone = score(lm, row, specs=lm.specs)
        assert one.log_probs == pytest.approx(alone.log_probs, abs=1e-9)
        assert one.end == pytest.approx(alone.end, abs=1e-9)


def test_a_prompt_is_computed_once(steps_computed: list[int]) -> None:
    lm = build(LAYOUTS["units"])
    generator = torch.Generator().manual_seed(1)
    prompt, *endings = (torch.randint(30, (n,), generator=generator) for n in (50, 6, 9))

    def steps(rows: Sequence[torch.Tensor]) -> int:
        steps_computed.clear()
        score_rows(lm, [{"units": TokenSequence(u[None, None], torch.tensor([len(u)]))} for u in rows], specs=lm.specs)
        return sum(steps_computed)

    behind = [torch.cat([prompt, ending]) for ending in endings]
    # The start and the prompt once; what ends a row is no input.
    assert steps(behind) == 1 + 50 + 6 + 9
    assert steps([behind[0], behind[0]]) == 1 + 50 + 6
