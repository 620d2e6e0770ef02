import json

import pytest
import torch
from safetensors.torch import save_file

from lalia.audio import Audio
from lalia.checkpoints.mimi import state_dict
from lalia.cli import main
from lalia.config import from_dict, to_dict
from lalia.errors import ConfigError, WeightsError
from lalia.model import load_tokenizer
from lalia.streams import Discrete, StreamSpec, TokenSequence
from lalia.tokenizers import Mimi, SpeechTokenizer
from lalia.vocoders import CodecDecoder
from upstream_files import mimi_as_kyutai

SHAPE = {
    "sampling_rate": 1600,
    "hidden_size": 16,
    "num_filters": 4,
    "num_residual_layers": 2,
    "upsampling_ratios": [4, 2],
    "codebook_size": 32,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "num_quantizers": 6,
    "upsample_groups": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "sliding_window": 6,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def theirs():
    """Mimi of transformers with random weights, large enough for every path to matter."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    model = MimiModel(MimiConfig(**SHAPE)).eval()
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if "layer_scale" in name:
                t.fill_(0.7)
            elif "embed_sum" in name:
                t.copy_(torch.randn_like(t) * 3)
            elif "cluster_usage" in name:
                t.copy_(0.5 + 3 * torch.rand_like(t))
            elif "norm.weight" in name:
                t.copy_(1 + 0.3 * torch.randn_like(t))
    return model


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("mimi")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder):
    architecture = json.loads((folder / "config.json").read_text())
    return Mimi.Config(str(folder), num_codebooks=5, architecture=architecture).build()


def test_the_published_form():
    config = Mimi.Config()
    assert config.spec == StreamSpec(kind=Discrete(2048, 8), frame_rate=12.5)
    assert config.sample_rate == 24000
    assert from_dict(to_dict(config)) == config
    assert Mimi.Config(num_codebooks=1).spec.kind == Discrete(2048, 1)
    # What the checkpoint's own config.json says beside the defaults changes nothing.
    assert Mimi.Config(architecture={"head_dim": 64, "frame_rate": 12.5}).codec == config.codec


@pytest.mark.parametrize("samples", [1, 15, 16, 160, 555])
def test_codes_are_those_of_transformers(ours, theirs, samples):
    x = torch.randn(2, 1, samples)
    with torch.no_grad():
        expected = theirs.encode(x, num_quantizers=5).audio_codes
    made = ours.encode(Audio(x, 1600))
    assert torch.equal(made.values, expected)
    assert len(expected.unique()) > 4 or samples < 100


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
def test_sound_is_that_of_transformers(ours, theirs, frames):
    codes = torch.randint(0, 32, (2, 5, frames))
    with torch.no_grad():
        expected = theirs.decode(codes).audio_values
    made = ours.decode(TokenSequence(codes, torch.tensor([frames] * 2)))
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(made.samples, expected, atol=1e-4, rtol=1e-4)


def test_a_folder_of_mimi_alone_is_a_tokenizer(folder, theirs, tmp_path, capsys):
    codec = load_tokenizer(folder)
    x = torch.randn(1, 1, 320)
    with torch.no_grad():
        # 8 codebooks, or all that there are.
        assert torch.equal(codec.encode(Audio(x, 1600)).values, theirs.encode(x, num_quantizers=6).audio_codes)
    Audio(0.1 * x, 1600).save(tmp_path / "said.wav")
    heard = tmp_path / "heard.wav"
    assert main(["resynthesize", str(tmp_path / "said.wav"), "--tokenizer", str(folder), "-o", str(heard)]) == 0
    assert Audio.load(heard, check=False).seconds == pytest.approx(0.2)
    assert main(["chat", str(tmp_path / "said.wav"), "--model", str(folder), "-o", str(heard)]) == 2
    assert "has no recipe.json" in capsys.readouterr().err


def test_streaming_equals_transformers_offline(ours, theirs):
    x = torch.randn(2, 1, 1000)
    with torch.no_grad():
        codes = theirs.encode(x, num_quantizers=5).audio_codes
        sound = theirs.decode(codes).audio_values
    state, made = ours.init_state(2), []
    for start in range(0, 1000, 37):
        piece = Audio(x[:, :, start : start + 37], 1600)
        made.append(ours.encode(piece, state, final=start + 37 >= 1000).values)
    assert torch.equal(torch.cat(made, dim=2), codes)
    decoder, heard = ours.decoder_state(2), []
    for t in range(codes.shape[2]):
        piece = TokenSequence(codes[:, :, t : t + 1], torch.tensor([1, 1]))
        heard.append(ours.decode(piece, decoder, final=t == codes.shape[2] - 1).samples)
    torch.testing.assert_close(torch.cat(heard, dim=2), sound, atol=1e-4, rtol=1e-4)


def test_its_decoder_is_a_vocoder(ours):
    vocoder = CodecDecoder.Config("user", ours.config).build({"user": ours.spec})
    codes = ours.encode(Audio(torch.randn(1, 1, 320), 1600))
    vocoder.take(ours)
    torch.testing.assert_close(vocoder.decode({"user": codes}).samples, ours.decode(codes).samples)


def test_names_before_transformers_5_are_known(theirs, ours):
    tensors = theirs.state_dict()
    moved = {
        "encoder.encoder_seanet.": "encoder.",
        "encoder.encoder_transformer.": "encoder_transformer.",
        "encoder.downsample.": "downsample.",
        "decoder.decoder_seanet.": "decoder.",
        "decoder.decoder_transformer.": "decoder_transformer.",
        "decoder.upsample.": "upsample.",
    }

    def old(name):
        return next((new + name.removeprefix(now) for now, new in moved.items() if name.startswith(now)), name)

    books = {"num_semantic": 1, "num_codebooks": 5}
    before = state_dict({old(n): t for n, t in tensors.items()}, **books)
    after = state_dict(tensors, **books)
    assert before.keys() == after.keys() == ours.codec.state_dict().keys()
    assert all(torch.equal(before[n], after[n]) for n in after)


KYUTAI = {
    "channels": 1,
    "sample_rate": 1600,
    "frame_rate": 100.0,
    "seanet": {"dimension": 16, "n_filters": 4, "n_residual_layers": 2, "ratios": [4, 2], "true_skip": True},
    "quantizer": {"dimension": 8, "n_q": 6, "bins": 32},
    "transformer": {"num_heads": 4, "num_layers": 2, "dim_feedforward": 24, "context": 6, "max_period": 10000},
}


@pytest.mark.parametrize("form", ["in_proj_weight", "in_projs.0.weight"])
def test_kyutais_names_hold_the_same(tmp_path, form):
    """Upstream's repository has its language model beside it, whose config.json names the files."""
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    whole = MimiModel(MimiConfig(**SHAPE | {"num_key_value_heads": 4})).eval()
    with torch.no_grad():
        for name, t in whole.state_dict().items():
            if t.ndim:
                t.copy_(0.5 + 3 * torch.rand_like(t) if "usage" in name else 0.4 * torch.randn_like(t))
    whole.save_pretrained(tmp_path / "theirs")
    state = mimi_as_kyutai(whole.state_dict(), 4)
    assert "decoder.model.2.convtr.convtr.weight" in state
    assert "quantizer.rvq_rest.vq.layers.0._codebook.embedding_sum" in state
    repository = tmp_path / "kyutai"
    repository.mkdir()
    save_file({n.replace("in_proj_weight", form): t.clone() for n, t in state.items()}, repository / "mimi.safetensors")
    names = {"mimi_name": "mimi.safetensors", "mimi_config_name": "mimi.json", "dep_q": 5}
    (repository / "config.json").write_text(json.dumps(names))
    (repository / "mimi.json").write_text(json.dumps(KYUTAI))
    save_file({"x": torch.zeros(1)}, repository / "model.safetensors")
    (repository / "tokenizer_spm_32k_3.model").write_bytes(b"")
    architecture = json.loads((tmp_path / "theirs" / "config.json").read_text())
    wanted = Mimi.Config(str(tmp_path / "theirs"), num_codebooks=5, architecture=architecture).build()
    found = Mimi.Config(str(repository), num_codebooks=5, architecture=architecture).build()
    ours, theirs = found.codec.state_dict(), wanted.codec.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    (repository / "mimi.json").unlink()
    with pytest.raises(WeightsError, match=r"mimi\.json cannot be read"):
        Mimi.Config(str(repository), num_codebooks=5, architecture=architecture).build()


def test_weights_of_something_else_are_refused(theirs, folder):
    tensors = theirs.state_dict()
    books = {"num_semantic": 1, "num_codebooks": 5}
    with pytest.raises(WeightsError, match="does not have"):
        state_dict({**tensors, "more": torch.zeros(1)}, **books)
    lacking = {n: t for n, t in tensors.items() if not n.endswith("layers.0.self_attn.v_proj.weight")}
    with pytest.raises(WeightsError, match="has no"):
        state_dict(lacking, **books)
    with pytest.raises(WeightsError, match="as architecture"):
        Mimi.Config(str(folder)).build()


def test_the_tiny_form_needs_nothing_and_is_the_same_each_time():
    config = Mimi.Config(num_codebooks=4).tiny()
    assert config.tiny() == config
    assert config.spec == StreamSpec(kind=Discrete(16, 4), frame_rate=12.5)
    first, second = config.build(), config.build()
    assert isinstance(first, SpeechTokenizer)
    assert first.identity == second.identity != Mimi.Config(num_codebooks=3).tiny().build().identity
    codes = first.encode(Audio(torch.randn(1, 1, 6000), 24000))
    assert codes.values.shape == (1, 4, 4)
    assert first.decode(codes).samples.shape == (1, 1, 7680)
    first.load_weights(first.weights())
    with pytest.raises(ConfigError, match="fetches its own"):
        first.load_weights({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    "change", [{"num_codebooks": 0}, {"num_codebooks": 33}, {"architecture": {"hidden_act": "relu"}}]
)
def test_what_cannot_be(change):
    with pytest.raises(ConfigError, match="Mimi"):
        Mimi.Config(**change)
