"""Moshi's weights, from transformers and from Kyutai: the same networks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lalia.checkpoints import moshi
from lalia.errors import WeightsError
from lalia.nn.depth import DepthTransformer
from lalia.nn.transformer import Transformer
from upstream_files import moshi_as_kyutai

K, DIM, DEPTH_DIM, HEADS = 3, 32, 16, 4


@pytest.fixture(scope="module")
def upstream() -> Any:
    """A small Moshi of transformers with no weight where it began."""
    from transformers import MimiConfig, MoshiConfig, MoshiForConditionalGeneration

    audio = MimiConfig(
        num_filters=2,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=8,
        codebook_size=16,
        codebook_dim=4,
        vector_quantization_hidden_dimension=4,
        num_quantizers=K,
        num_semantic_quantizers=1,
        upsample_groups=16,
    )
    config = MoshiConfig(
        vocab_size=23,
        hidden_size=DIM,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        ffn_dim=96,
        sliding_window=40,
        max_position_embeddings=40,
        num_codebooks=K,
        pad_token_id=3,
        audio_encoder_config=audio.to_dict(),
        depth_decoder_config={
            "hidden_size": DEPTH_DIM,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 48,
        },
    )
    torch.manual_seed(0)
    model = MoshiForConditionalGeneration(config).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.ones_like(p) if p.ndim == 1 else torch.zeros_like(p))
            p.add_((0.2 if p.ndim == 1 else 0.3 if "depth" in name else 0.15) * torch.randn_like(p))
    return model


def networks(found: dict[str, Tensor], configs: moshi.Configs) -> tuple[Transformer, DepthTransformer]:
    backbone, depth = configs[0].build(), configs[1].build(in_dim=DIM, num_steps=K)
    for prefix, network in (("backbone.", backbone), ("depth.network.", depth)):
        network.load_state_dict({n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)})
    return backbone.eval(), depth.eval()


KYUTAI = {
    "dim": DIM,
    "num_heads": HEADS,
    "num_layers": 2,
    "hidden_scale": 2.25,
    "context": 40,
    "depformer_dim": DEPTH_DIM,
    "depformer_dim_feedforward": 36,
    "depformer_num_heads": 2,
    "depformer_num_layers": 2,
}


@torch.no_grad()
def test_the_text_is_predicted_as_in_transformers(upstream: Any) -> None:
    config = upstream.config.to_dict()
    found = moshi.from_transformers(upstream.state_dict(), config)
    backbone, _ = networks(found, moshi.transformers_configs(config))
    g = torch.Generator().manual_seed(1)
    words, codes = torch.randint(24, (2, 9), generator=g), torch.randint(17, (2, 2 * K, 9), generator=g)
    x = found["text.embedding"][words]
    x = x + sum(found["codes.embedding"][k][codes[:, k]] for k in range(2 * K))
    theirs = upstream.decoder(inputs_embeds=x, use_cache=False)
    hidden = backbone(x)
    assert torch.allclose(hidden, theirs.last_hidden_state, atol=1e-5)
    assert torch.allclose(hidden @ found["text.head"].T, theirs.logits, atol=1e-5)
    own = upstream.decoder.model.embed_tokens(words)
    own = own + sum(table(codes[:, k]) for k, table in enumerate(upstream.embed_tokens))
    assert torch.allclose(x, own, atol=1e-6)
    state = backbone.init_state(2)
    steps = [backbone(x[:, s : s + 1], state=state) for s in range(9)]
    assert torch.allclose(torch.cat(steps, dim=1), theirs.last_hidden_state, atol=1e-5)


@torch.no_grad()
def test_the_codes_are_predicted_as_in_transformers(upstream: Any) -> None:
    config = upstream.config.to_dict()
    found = moshi.from_transformers(upstream.state_dict(), config)
    _, depth = networks(found, moshi.transformers_configs(config))
    g = torch.Generator().manual_seed(2)
    context = torch.randn(5, DIM, generator=g)
    words, codes = torch.randint(24, (5,), generator=g), torch.randint(17, (5, K - 1), generator=g)
    theirs = upstream.depth_decoder(
        input_ids=torch.cat([words[:, None], codes], dim=1),
        last_hidden_state=context[:, None].expand(-1, K, -1),
        use_cache=False,
    ).logits
    first = F.embedding(words, found["depth.first"])
    before = [F.embedding(codes[:, k], found["depth.codes"][k]) for k in range(K - 1)]
    hidden = depth(context, torch.stack(before, dim=1), first)
    ours = torch.einsum("nkd,kvd->nkv", hidden, found["depth.out"])
    assert float(theirs.std()) > 0.1
    assert torch.allclose(ours, theirs, atol=1e-5)
    state = depth.init_state(5)
    for k, entering in enumerate([first, *before]):
        logits = depth.step(context, entering, state) @ found["depth.out"][k].T
        assert torch.allclose(logits, theirs[:, k], atol=1e-5)


@pytest.mark.parametrize("form", ["in_proj_weight", "in_proj.weight", "in_projs"])
def test_kyutais_form_holds_the_same(upstream: Any, form: str) -> None:
    config = upstream.config.to_dict()
    state = moshi_as_kyutai(upstream.state_dict(), HEADS)
    if form == "in_proj.weight":
        state = {name.replace("in_proj_weight", form): t for name, t in state.items()}
    if form == "in_projs":
        for name in [n for n in state if "_proj" in n]:
            many = state.pop(name).chunk(K if name.startswith("depformer") else 1)
            target = name.replace("in_proj_weight", "in_projs.{}.weight").replace("out_proj.w", "out_projs.{}.w")
            state |= {target.format(i): t for i, t in enumerate(many)}
    wanted = moshi.from_transformers(upstream.state_dict(), config)
    found = moshi.from_kyutai(state, KYUTAI)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(t, wanted[name]) for name, t in found.items())
    backbone, depth = moshi.kyutai_configs(KYUTAI)
    explicit = replace(backbone, num_kv_heads=HEADS, head_dim=DIM // HEADS)
    assert (explicit, depth) == moshi.transformers_configs(config)


def test_moshi_has_its_published_size() -> None:
    backbone, depth = moshi.kyutai_configs()
    with torch.device("meta"):
        helium, small = backbone.build(), depth.build(in_dim=4096, num_steps=8)
    # Helium has 7B parameters with its two tables of 32000 words (arXiv:2410.00037 Table 1).
    tables = 2 * 32000 * 4096
    assert sum(p.numel() for p in helium.parameters()) + tables == pytest.approx(6.97e9, rel=0.02)
    assert (depth.hidden, backbone.hidden) == (2816, 11264)
    assert small.input.weight.shape == (8, 1024, 4096)


def test_other_weights_are_refused(upstream: Any) -> None:
    state = moshi_as_kyutai(upstream.state_dict(), HEADS)
    with pytest.raises(WeightsError, match="'x', which lalia does not know"):
        moshi.from_kyutai({**state, "x": torch.zeros(1)}, KYUTAI)
    del state["text_linear.weight"]
    with pytest.raises(WeightsError, match=r"have no 'text_linear\.weight'"):
        moshi.from_kyutai(state, KYUTAI)
