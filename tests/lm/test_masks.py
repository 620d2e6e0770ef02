"""What a SpeechLM tells its backbone of padding and prompts: with any mask, rows of a batch are as alone."""

from dataclasses import replace

import pytest
import torch

from lalia.errors import ConfigError
from lalia.layouts import Concat, Flat, Grid, Parallel
from lalia.lm import CTC, HF, Linear, Lookup, Sampler, Sampling, SpeechLM, Transformer, collect
from lalia.streams import Discrete, Streams, StreamSpec, TokenSequence

SPECS = {
    "question": StreamSpec(kind=Discrete(11), frame_rate=None),
    "text": StreamSpec(kind=Discrete(9), frame_rate=None),
    "codes": StreamSpec(kind=Discrete(7, num_codebooks=2), frame_rate=None),
    "units": StreamSpec(kind=Discrete(5), frame_rate=None),
}
OWN = Transformer.Config(num_layers=2, num_heads=2, dim=16, ffn_dim=32, block_size=3)
LLAMA = HF.Config(
    "llama",
    pretrained=False,
    new_vocabulary=True,
    architecture={
        "model_type": "llama",
        "vocab_size": 11,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
)
ANSWER = Concat((Flat("question"), Parallel(("text", "codes"), delays=(0, 1, 2))))


def build(backbone: Transformer.Config | HF.Config, aligned: bool) -> SpeechLM:
    torch.manual_seed(0)
    if aligned:
        config = SpeechLM.Config(
            layout=Flat("question"),
            backbone=backbone,
            inputs={"question": Lookup()},
            heads={"units": CTC.Config()},
            upsample=2,
        )
    else:
        config = SpeechLM.Config(
            layout=ANSWER,
            backbone=backbone,
            inputs={s: Lookup() for s in ANSWER.streams},
            heads={s: Linear.Config() for s in ("text", "codes")},
        )
    lm: SpeechLM = config.build(SPECS)
    with torch.no_grad():
        lm.start.normal_()
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return lm.double().eval()


def streams_of(lengths: dict[str, list[int]]) -> Streams:
    generator = torch.Generator().manual_seed(0)
    out: Streams = {}
    for name, rows in lengths.items():
        kind = SPECS[name].kind
        assert isinstance(kind, Discrete)
        shape = (len(rows), kind.num_codebooks, max(rows))
        out[name] = TokenSequence(torch.randint(kind.codebook_size, shape, generator=generator), torch.tensor(rows))
    return out


# Two rows are long where the third is short, and a prompt is long where its answer is short.
BATCH = streams_of({"question": [3, 8, 5], "text": [6, 1, 2], "codes": [4, 2, 3]})


@pytest.mark.parametrize("backbone", [OWN, LLAMA], ids=["own", "llama"])
@pytest.mark.parametrize("mask", ["causal", "pair", "prefix", "block", "full"])
@torch.no_grad()
def test_rows_of_a_padded_batch_are_as_alone(mask: str, backbone: Transformer.Config | HF.Config) -> None:
    aligned = mask in ("block", "full")
    lm = build(replace(backbone, mask=mask), aligned)
    whole = {s: t for s, t in BATCH.items() if s in lm.layout.streams}
    grid = lm.pack(whole)
    together = lm(grid)
    for b in range(3):
        row = {s: t.row(b) for s, t in whole.items()}
        alone = lm(lm.pack(row))
        torch.testing.assert_close(together[b : b + 1, : alone.shape[1]], alone)
        if not aligned:
            for stream, nll in lm.nll(lm.pack(row)).items():
                torch.testing.assert_close(lm.nll(grid)[stream][b : b + 1, :, : nll.shape[2]], nll)


def changed(grid: Grid, stream: str, step: int) -> Grid:
    """With another code in a cell of row 0."""
    assert grid.present(stream)[0, 0, step]
    values = {**grid.values, stream: grid.values[stream].clone()}
    values[stream][0, 0, step] = (values[stream][0, 0, step] + 1) % 5
    return replace(grid, values=values)


@pytest.mark.parametrize(("mask", "sees"), [("causal", False), ("prefix", True)])
@torch.no_grad()
def test_a_prompt_is_seen_whole_and_an_answer_is_not(mask: str, sees: bool) -> None:
    lm = build(replace(OWN, mask=mask), aligned=False)
    grid = lm.pack({s: t.row(0) for s, t in BATCH.items()})
    before = lm(grid)
    # The question has 3 tokens and an end; the first cells of the answer are predicted after them.
    prompt, answer = lm(changed(grid, "question", 2)), lm(changed(grid, "text", 4))
    assert bool((prompt[0, 0] - before[0, 0]).abs().max() > 1e-6) == sees
    assert torch.equal(answer[:, :5], before[:, :5])
    assert not torch.allclose(answer[:, 5], before[:, 5])


@torch.no_grad()
def test_a_prompt_seen_whole_is_so_in_generation() -> None:
    lm = build(replace(OWN, mask="prefix"), aligned=False)
    question = {"question": BATCH["question"]}
    made = collect(lm.generate(question, sampler=Sampler(Sampling(temperature=0.0)), max_steps=12))
    for b in range(3):
        answer = {s: t.row(b) for s, t in made.items()}
        # A stream that was cut short has no end: what it would have been is not compared.
        grid = lm.pack({"question": BATCH["question"].row(b), **answer})
        hidden = lm(grid)
        for stream in ("text", "codes"):
            there = grid.present(stream)[0, 0] & (grid.positions[stream][0, 0] < int(answer[stream].lengths[0]))
            picked = lm.linear(stream).logits(hidden[0, there], lm.linear(stream).rows(0)).argmax(dim=-1)
            assert picked.tolist() == grid.values[stream][0, 0, there].tolist()


def test_masks_that_show_what_is_predicted_are_refused() -> None:
    for mask in ("block", "full"):
        with pytest.raises(ConfigError, match=f"With the mask '{mask}' a step sees the steps that it predicts"):
            build(replace(OWN, mask=mask), aligned=False)
    with pytest.raises(ConfigError, match="The mask 'prefix' shows what comes before the first prediction"):
        build(replace(OWN, mask="prefix"), aligned=True)
