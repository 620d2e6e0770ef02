"""The SpeechLM: what it is trained on is what it generates, alone or in a batch."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lalia.layouts import Concat, Flat, Merge, Parallel
from lalia.lm import HF, Linear, Lookup, Project, Sampler, Sampling, SpeechLM, Transformer, collect
from lalia.streams import Continuous, Discrete, Streams, StreamSpec, TokenSequence

UNITS = {"units": StreamSpec(kind=Discrete(30), frame_rate=25.0)}
OWN = Transformer.Config(num_layers=2, num_heads=4, dim=32, ffn_dim=64, num_kv_heads=2)
LLAMA = HF.Config(
    "tiny",
    pretrained=False,
    new_vocabulary=True,
    architecture={
        "model_type": "llama",
        "vocab_size": 11,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
)
GREEDY = Sampler(Sampling(temperature=0.0))


def build(backbone: Transformer.Config | HF.Config = OWN, *, tied: bool = False) -> SpeechLM:
    torch.manual_seed(0)
    config = SpeechLM.Config(
        layout=Flat("units"), backbone=backbone, inputs={"units": Lookup()}, heads={"units": Linear.Config(tied=tied)}
    )
    lm: SpeechLM = config.build(UNITS)
    with torch.no_grad():
        for p in lm.parameters():
            if p.ndim > 1:
                p.mul_(8.0)
    return lm.eval()


def units(lengths: list[int], seed: int = 0) -> Streams:
    values = torch.randint(30, (len(lengths), 1, max(lengths)), generator=torch.Generator().manual_seed(seed))
    return {"units": TokenSequence(values, torch.tensor(lengths))}


@pytest.mark.parametrize("backbone", [OWN, LLAMA], ids=["own", "hf"])
def test_log_prob_is_the_sum_that_it_says(backbone: Transformer.Config | HF.Config) -> None:
    lm = build(backbone)
    streams = units([7])
    grid = lm.pack(streams)
    with torch.no_grad():
        logits = F.linear(lm(grid)[0], lm.head("units").weight)
    naive = F.log_softmax(logits.float(), dim=-1)
    ids = [*streams["units"].values[0, 0].tolist(), 30]
    got = lm.log_prob(streams)["units"][0, 0]
    assert torch.allclose(got, torch.stack([naive[s, i] for s, i in enumerate(ids)]), atol=1e-4)


@pytest.mark.parametrize("backbone", [OWN, LLAMA], ids=["own", "hf"])
def test_padding_changes_nothing(backbone: Transformer.Config | HF.Config) -> None:
    lm, streams = build(backbone), units([9, 4, 1])
    together = lm.log_prob(streams)["units"]
    for b in range(3):
        alone = lm.log_prob({"units": streams["units"].row(b)})["units"][0]
        assert torch.allclose(together[b, :, : alone.shape[1]], alone, atol=1e-4)


@pytest.mark.parametrize("backbone", [OWN, LLAMA], ids=["own", "hf"])
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_generation_equals_repeated_whole_passes(backbone: Transformer.Config | HF.Config, tied: bool) -> None:
    lm = build(backbone, tied=tied)
    prompt = units([5])
    sampler = GREEDY.ban(units=((30, 31),))
    made = collect(lm.generate(prompt, sampler=sampler, max_steps=12))["units"].values[0, 0].tolist()
    ids = prompt["units"].values[0, 0].tolist()
    for _ in range(12):
        grid = lm.pack({"units": TokenSequence(torch.tensor([[[*ids, 0]]]), torch.tensor([len(ids) + 1]))})
        with torch.no_grad():
            logits = F.linear(lm(grid)[0, len(ids)], lm.head("units").weight)
        ids.append(int(logits[:30].argmax()))
    assert made == ids[5:]


@pytest.mark.parametrize("backbone", [OWN, LLAMA], ids=["own", "hf"])
def test_a_row_generates_the_same_alone_and_in_a_batch(backbone: Transformer.Config | HF.Config) -> None:
    lm, prompts = build(backbone), units([2, 9, 5, 1])
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.95))
    options = {"sampler": sampler, "limits": {"units": 40}}
    together = collect(lm.generate(prompts, seeds=[3, 1, 4, 1], **options))["units"]  # type: ignore[arg-type]
    assert len(set(together.lengths.tolist())) > 1, "rows should end at different times"
    for b, seed in enumerate([3, 1, 4, 1]):
        row = {"units": prompts["units"].row(b)}
        alone = collect(lm.generate(row, seeds=[seed], **options))  # type: ignore[arg-type]
        got = alone["units"].values[0, 0].tolist() if "units" in alone else []
        assert together.row(b).values[0, 0].tolist() == got


def test_own_transformer_equals_llama() -> None:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    theirs = LlamaModel(config).eval()
    ours = Transformer(replace(OWN, norm_eps=config.rms_norm_eps)).eval()
    with torch.no_grad():
        for mine, layer in zip(ours.layers, theirs.layers, strict=True):
            a, f = layer.self_attn, layer.mlp
            mine.attention.qkv.weight.copy_(torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]))
            mine.attention.out.weight.copy_(a.o_proj.weight)
            mine.feed_forward.up.weight.copy_(torch.cat([f.gate_proj.weight, f.up_proj.weight]))
            mine.feed_forward.down.weight.copy_(f.down_proj.weight)
        x = torch.randn(2, 11, 32)
        difference = (ours(x) - theirs(inputs_embeds=x).last_hidden_state).abs().max()
    assert float(difference) < 1e-5


def test_a_state_in_any_pieces_equals_the_whole() -> None:
    torch.manual_seed(2)
    model = Transformer(OWN).eval()
    x = torch.randn(2, 12, 32)
    with torch.no_grad():
        whole = model(x)
        state = model.init_state(2, capacity=2)
        pieces = [model(part, None, state) for part in x.split([1, 4, 1, 6], dim=1)]
    assert torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-5)


def test_prompt_of_features_then_units() -> None:
    specs = {**UNITS, "heard": StreamSpec(kind=Continuous(6), frame_rate=50.0)}
    config = SpeechLM.Config(
        layout=Concat((Flat("heard"), Flat("units"))),
        backbone=OWN,
        inputs={"heard": Project.Config(hidden=16), "units": Lookup()},
        heads={"units": Linear.Config()},
    )
    torch.manual_seed(0)
    lm: SpeechLM = config.build(specs).eval()
    heard = TokenSequence(torch.randn(2, 5, 6), torch.tensor([5, 3]))
    made = collect(lm.generate({"heard": heard}, sampler=GREEDY.ban(units=((30, 31),)), max_steps=4))
    assert made["units"].lengths.tolist() == [4, 4]
    assert "heard" not in made
    loss = lm.loss(lm.pack({"heard": heard, "units": units([4, 2])["units"]}))["total"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is not None for n, p in lm.named_parameters() if "heard" in n)


def test_delayed_codebooks_come_as_whole_frames() -> None:
    specs = {"codes": StreamSpec(kind=Discrete(12, num_codebooks=3), frame_rate=12.5)}
    config = SpeechLM.Config(
        layout=Parallel(("codes",), delays=(0, 1, 2)),
        backbone=OWN,
        inputs={"codes": Lookup()},
        heads={"codes": Linear.Config()},
    )
    torch.manual_seed(0)
    lm: SpeechLM = config.build(specs).eval()
    sampler = Sampler(Sampling(temperature=1.0)).ban(codes=((12, 13),))
    made = collect(lm.generate(sampler=sampler, max_steps=9, batch_size=2))["codes"]
    assert made.values.shape == (2, 3, 7)
    assert int(made.values.max()) < 12


def test_a_choice_of_streams_needs_one_vocabulary() -> None:
    specs = {
        "units": StreamSpec(kind=Discrete(8), frame_rate=25.0, deduplicated=True),
        "pitch": StreamSpec(kind=Discrete(4), frame_rate=5.0, deduplicated=True),
    }
    config = SpeechLM.Config(
        layout=Merge(("units", "pitch")),
        backbone=OWN,
        inputs={"units": Lookup("speech"), "pitch": Lookup("speech")},
        heads={"units": Linear.Config(tied=True), "pitch": Linear.Config(tied=True)},
    )
    torch.manual_seed(0)
    lm: SpeechLM = config.build(specs).eval()
    made = collect(lm.generate(sampler=Sampler(Sampling(temperature=1.0)), max_steps=30, batch_size=2))
    assert int(made["units"].values.max()) < 8
    assert int(made["pitch"].values.max()) < 4


def test_sampling_follows_the_softmax() -> None:
    from lalia.lm.sampling import sample, uniform

    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    n = 20000
    draw = torch.tensor([[uniform(seed, k) for k in (0, 1)] for seed in range(n)], dtype=torch.float64)
    counts = torch.bincount(sample(logits.expand(n, 4), Sampling(), draw), minlength=4)
    expected = logits.softmax(dim=0) * n
    assert float(((counts - expected) ** 2 / expected).sum()) < 16.3  # chi-square, 3 degrees, p = 0.001
    kept = sample(logits.expand(n, 4), Sampling(top_k=2), draw)
    assert set(kept.tolist()) == {0, 3}
    assert set(sample(logits.expand(n, 4), Sampling(top_p=0.6), draw).tolist()) == {3}
