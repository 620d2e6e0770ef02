"""SNAC against its own package where it is installed, and against a naive computation everywhere."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from lalia.audio import Audio
from lalia.checkpoints.snac import state_dict
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, WeightsError
from lalia.nn.multi_scale import MultiScaleVQ
from lalia.nn.snac import frame_noise
from lalia.streaming import select_rows
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import SNAC, SpeechTokenizer
from lalia.vocoders import CodecDecoder

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = {
    "sampling_rate": 800,
    "encoder_dim": 4,
    "encoder_rates": [2, 3],
    "decoder_dim": 16,
    "decoder_rates": [3, 2],
    "attn_window_size": None,
    "codebook_size": 32,
    "codebook_dim": 4,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}


def build(**changes: object) -> SNAC:
    """Large enough for every path to matter."""
    snac: SNAC = SNAC.Config("small", pretrained=False, architecture={**SHAPE, **changes}).build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in snac.named_parameters():
            if "alpha" in name:
                p.uniform_(0.5, 2.0, generator=generator)
            elif p.ndim > 1:
                p.normal_(std=0.6 / (p[0].numel() ** 0.5), generator=generator)
    return snac


def random_codes(rows: int, frames: int) -> Tensor:
    return torch.randint(32, (rows, 7, frames), generator=torch.Generator().manual_seed(1))


def test_the_published_form() -> None:
    config = SNAC.Config()
    assert config.spec == StreamSpec(kind=Discrete(4096, 7), frame_rate=11.71875)
    assert (config.sample_rate, config.hop) == (24000, 2048)
    assert from_dict(to_dict(config)) == config
    with torch.device("meta"):
        model = SNAC(SNAC.Config(pretrained=False))
    # 19.8 million (its README), of which the lengths of normalised weights are part.
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(19.8e6, rel=2e-3)


# -- naive ----------------------------------------------------------------------------------------


def test_codes_are_in_the_order_of_time() -> None:
    quantizer = MultiScaleVQ((4, 2, 1), 8, 4, 6)
    assert quantizer.slots == ((0, 0), (1, 0), (2, 0), (2, 1), (1, 2), (2, 2), (2, 3))
    assert len(MultiScaleVQ((8, 4, 2, 1), 8, 4, 6).slots) == 15
    with pytest.raises(ConfigError, match=r"strides \[4, 3, 1\]. Give numbers of which each is a multiple"):
        MultiScaleVQ((4, 3, 1), 8, 4, 6)


@torch.no_grad()
def test_quantisation_at_three_rates() -> None:
    """Level by level, code by code."""
    torch.manual_seed(0)
    quantizer, x = MultiScaleVQ((4, 2, 1), 8, 4, 6), torch.randn(1, 12, 6)
    codes = quantizer.encode(x)
    assert codes.shape == (1, 7, 3)
    left, total = x.clone(), torch.zeros_like(x)
    for level, stride in enumerate((4, 2, 1)):
        for start in range(0, 12, stride):
            span = slice(start, start + stride)
            seen = quantizer.into[level](left[0, span].mean(dim=0))
            table = quantizer.tables[level]
            code = int(torch.stack([F.cosine_similarity(seen, row, dim=0) for row in table]).argmax())
            assert code == int(codes[0, quantizer.slots.index((level, start % 4)), start // 4])
            spoken = quantizer.out[level](table[code])
            left[0, span] -= spoken
            total[0, span] += spoken
    torch.testing.assert_close(quantizer.decode(codes), total)
    # The first codes alone are the coarse ones, as far as they go.
    coarse = quantizer.decode(codes[:, :1]).unflatten(1, (3, 4))
    assert torch.equal(coarse, coarse[:, :, :1].expand_as(coarse))


def test_noise_belongs_to_a_place() -> None:
    places = torch.arange(9).expand(2, -1)
    whole = frame_noise(places, (2, 6), 3)
    assert [n.shape for n in whole] == [(2, 1, 18), (2, 1, 54)]
    later = frame_noise(places[:1, 4:], (2, 6), 3)
    assert torch.equal(later[0], whole[0][:1, :, 8:])
    assert torch.equal(later[1], whole[1][:1, :, 24:])
    assert not torch.equal(frame_noise(places, (2, 6), 4)[0], whole[0])
    many = frame_noise(torch.arange(500)[None], (20,), 0)[0]
    assert abs(float(many.mean())) < 0.05
    assert float(many.std()) == pytest.approx(1.0, abs=0.05)


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"noise": False}, {"depthwise": False}, {"vq_strides": [2, 1]}])
def test_pieces_give_what_the_whole_gives(changes: dict[str, object]) -> None:
    snac = build(**changes)
    hop = snac.hop
    audio = Audio(torch.randn(2, 1, 70 * hop), 800, torch.tensor([70 * hop - 5, 31 * hop]))
    whole = snac.encode(audio)
    assert whole.lengths.tolist() == [70, 31]
    assert len(whole.values.unique()) > 8
    state, rows = snac.init_state(2), [[], []]  # type: ignore[var-annotated]
    for start in range(0, 70 * hop, 100):
        piece = Audio(audio.samples[:, :, start : start + 100], 800, (audio.lengths - start).clamp(0, 100))
        codes = snac.encode(piece, state, final=start + 100 >= 70 * hop)
        for b, row in enumerate(rows):
            row.append(codes.row(b).values[0])
    for b, row in enumerate(rows):
        assert torch.equal(torch.cat(row, dim=1), whole.row(b).values[0])
    sound = snac.decode(whole)
    assert float(sound.samples.std()) > 0.05
    decoder = snac.decoder_state(2)
    for _ in range(2):  # After its end a stream begins anew.
        made = [[], []]  # type: ignore[var-annotated]
        for t in range(0, 70, 3):
            piece = snac.decode(whole.cut(t, t + 3), decoder, final=t + 3 >= 70)
            for b, row in enumerate(made):
                row.append(piece.row(b).samples[0, 0])
        for b, row in enumerate(made):
            torch.testing.assert_close(torch.cat(row), sound.row(b).samples[0, 0], atol=1e-4, rtol=0)


def test_the_published_shape_streams_as_late_as_it_says() -> None:
    config = SNAC.Config().tiny()
    snac = config.build()
    codes = TokenSequence(torch.randint(16, (1, 7, 12)), torch.tensor([12]))
    whole, state = snac.decode(codes).samples, snac.decoder_state(1)
    made = [snac.decode(codes.cut(t, t + 1), state, final=t == 11).samples for t in range(12)]
    late = snac.synthesizer.field.right
    assert [m.shape[2] // 2048 for m in made] == [0] * late + [1] * (11 - late) + [1 + late]
    torch.testing.assert_close(torch.cat(made, dim=2), whole, atol=1e-4, rtol=0)


def test_rows_of_a_stream_are_what_they_are_alone() -> None:
    snac, codes = build(), random_codes(2, 40)
    state = snac.decoder_state(2)
    first = snac.decode(TokenSequence(codes[:, :, :20], torch.tensor([20, 9])), state)
    alone = select_rows(state, torch.tensor([1]))
    rest = snac.decode(TokenSequence(codes[1:, :, 9:], torch.tensor([31])), alone, final=True)
    expected = snac.decode(TokenSequence(codes[1:], torch.tensor([40]))).samples[0, 0]
    torch.testing.assert_close(torch.cat([first.row(1).samples[0, 0], rest.samples[0, 0]]), expected, atol=1e-4, rtol=0)


def test_its_decoder_is_a_vocoder() -> None:
    snac = build()
    vocoder = CodecDecoder.Config("codes", snac.config).build({"codes": snac.spec})
    codes = TokenSequence(random_codes(1, 9), torch.tensor([9]))
    vocoder.take(snac)
    assert torch.equal(vocoder.decode({"codes": codes}).samples, snac.decode(codes).samples)


def test_the_same_codes_make_the_same_sound() -> None:
    snac, codes = build(), TokenSequence(random_codes(2, 9)[:1].expand(2, -1, -1), torch.tensor([9, 9]))
    once = snac.decode(codes).samples
    torch.manual_seed(5)
    assert torch.equal(snac.decode(codes).samples, once)
    assert torch.equal(once[0], once[1])
    snac.synthesizer.seed = 1
    other = snac.decode(codes).samples
    assert not torch.allclose(other, once, atol=1e-3)


def test_the_tiny_form_needs_nothing_and_is_the_same_each_time() -> None:
    config = SNAC.Config().tiny()
    assert config.tiny() == config
    assert config.spec == StreamSpec(kind=Discrete(16, 7), frame_rate=11.71875)
    first, second = config.build(), config.build()
    assert isinstance(first, SpeechTokenizer)
    assert first.identity == second.identity
    codes = first.encode(Audio(torch.randn(1, 1, 6000), 24000))
    assert codes.values.shape == (1, 7, 3)
    assert first.decode(codes).samples.shape == (1, 1, 6144)
    nothing = TokenSequence(torch.zeros(1, 7, 0, dtype=torch.long), torch.tensor([0]))
    assert first.decode(nothing).samples.shape[2] == 0
    first.load_weights(first.weights())
    with pytest.raises(ConfigError, match="fetches its own"):
        first.load_weights({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"attn_window_size": 32}, "attention over 32 frames"),
        ({"decoder_rates": [2, 4, 8, 8]}, r"decoder_rates \(2, 4, 8, 8\) .* do not mirror"),
        ({"decoder_dim": 100}, "a multiple of 16"),
    ],
)
def test_what_cannot_be(architecture: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SNAC.Config(architecture=architecture)


# -- weights --------------------------------------------------------------------------------------


def published(snac: SNAC, naming: str) -> dict[str, Tensor]:
    """The weights of a model under the names of the package, normalised ones apart."""
    out: dict[str, Tensor] = {}

    def norm(stem: str, weight: Tensor) -> None:
        length = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True)
        if naming == "whole":
            out[f"{stem}.weight"] = weight
        elif naming == "old":
            out[f"{stem}.weight_g"], out[f"{stem}.weight_v"] = length, 3 * weight
        else:
            stem += ".parametrizations.weight."
            out[f"{stem}original0"], out[f"{stem}original1"] = length, 3 * weight

    for name, t in snac.state_dict().items():
        parts = name.split(".")
        if parts[0] == "synthesizer" and parts[1] == "quantizer":
            if parts[2] == "tables":
                out |= {f"quantizer.quantizers.{i}.codebook.weight": table for i, table in enumerate(t)}
            else:
                stem = f"quantizer.quantizers.{parts[3]}.{'in' if parts[2] == 'into' else 'out'}_proj"
                if parts[4] == "weight":
                    norm(stem, t[..., None])
                else:
                    out[f"{stem}.bias"] = t
            continue
        if parts[0] == "synthesizer":
            stem = "decoder.model." + ".".join(parts[3:]).replace("layers", "block")
        else:
            stem = name.replace("layers", "block")
        if t.ndim == 3 and stem.endswith(".weight"):
            norm(stem.removesuffix(".weight"), t)
        else:
            out[stem] = t
    return {name: t.contiguous() for name, t in out.items()}


def saved(folder: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    return folder


@pytest.mark.parametrize("naming", ["new", "old", "whole"])
def test_weights_come_under_the_names_of_the_package(naming: str, tmp_path: Path) -> None:
    snac = build()
    folder = saved(tmp_path, published(snac, naming))
    again: SNAC = SNAC.Config(str(folder), architecture=SHAPE).build()
    assert snac.state_dict().keys() == again.state_dict().keys()
    codes = TokenSequence(random_codes(1, 9), torch.tensor([9]))
    torch.testing.assert_close(again.decode(codes).samples, snac.decode(codes).samples)
    with pytest.raises(WeightsError, match=r"another shape than was asked for. Give its config.json as architecture"):
        SNAC.Config(str(folder)).build()


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    tensors = published(build(), "new")
    with pytest.raises(WeightsError, match="has 'more', which SNAC does not have"):
        state_dict({**tensors, "more": torch.zeros(1)})
    half = next(n for n in tensors if n.endswith("original1"))
    with pytest.raises(WeightsError, match=r"has .*original0' and no .*original1'"):
        state_dict({n: t for n, t in tensors.items() if n != half})
    with pytest.raises(WeightsError, match="lacks codebooks"):
        state_dict({n: t for n, t in tensors.items() if "codebook" not in n})
    folder = saved(tmp_path, {n: t for n, t in tensors.items() if not n.endswith("alpha")})
    with pytest.raises(
        WeightsError, match=r"cannot be loaded. The codec's encoder.*alpha should be \(1, 4, 1\), not noth"
    ):
        SNAC.Config(str(folder), architecture=SHAPE).build()


def test_the_public_pickle_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"not to be read")
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    with pytest.raises(
        WeightsError, match=r"only pytorch_model.bin.* give a folder with its config.json and its tensors"
    ):
        SNAC.Config(str(tmp_path), architecture=SHAPE).build()


# -- parity ---------------------------------------------------------------------------------------


def _flat(levels: list[Tensor]) -> Tensor:
    """Codes of three rates as Mini-Omni flattens them (``reconstruct_tensors``, backwards)."""
    a, b, c = levels
    return torch.stack([a, b[:, ::2], c[:, ::4], c[:, 1::4], b[:, 1::2], c[:, 2::4], c[:, 3::4]], dim=1)


@pytest.mark.parametrize("changes", [{}, {"depthwise": False, "encoder_rates": [2, 4], "decoder_rates": [4, 2]}])
def test_codes_and_sound_are_those_of_the_package(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = pytest.importorskip("snac")
    torch.manual_seed(0)
    theirs = package.SNAC(**{**SHAPE, **changes}).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            if "alpha" in name:
                p.uniform_(0.5, 2.0)
            elif p.ndim > 1:
                p.normal_()
            if name.endswith("original0") and p.ndim > 1:
                p.uniform_(0.5, 1.5)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**SHAPE, **changes}))
    ours: SNAC = SNAC.Config(str(tmp_path), architecture={**SHAPE, **changes}).build()
    x = torch.randn(2, 1, 50 * ours.hop - 3)
    with torch.no_grad():
        expected = theirs.encode(x)
    codes = ours.encode(Audio(x, 800))
    assert torch.equal(codes.values, _flat(expected))
    assert all(len(level.unique()) > 8 for level in expected)
    theirs.double()
    noise = iter(frame_noise(torch.arange(50).expand(2, -1), ours.synthesizer._rates, ours.config.seed))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(noise))
    with torch.no_grad():
        sound = theirs.decode(expected)
    monkeypatch.undo()
    assert float(sound.std()) > 0.05
    # In double precision: with weights as wild as these, rounding grows from layer to layer.
    ours.double().load_state_dict(state_dict(theirs.state_dict()))
    torch.testing.assert_close(ours.decode(codes).samples, sound.float(), atol=1e-6, rtol=1e-5)
