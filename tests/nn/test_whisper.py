from typing import Any

import pytest
import torch

from lalia.nn.whisper import Whisper
from lalia.streaming import select_rows

SHAPE = Whisper.Config(
    dim=32, encoder_layers=2, decoder_layers=2, num_heads=4, ffn_dim=48, vocabulary_size=90, source_positions=40
)


@pytest.fixture(scope="module")
def pair() -> tuple[Whisper, Any]:
    """A network, and that of transformers with the same weights."""
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(1)
    config = WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=90,
        max_source_positions=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    theirs = WhisperModel(config).eval()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    net: Whisper = SHAPE.build().eval()
    net.load_state_dict(theirs.state_dict())
    return net, theirs


@torch.inference_mode()
def test_it_computes_what_transformers_computes(pair: tuple[Whisper, Any]) -> None:
    net, theirs = pair
    mel, ids = torch.randn(2, 80, 80), torch.randint(90, (2, 7))
    wanted = theirs(input_features=mel, decoder_input_ids=ids)
    sound = net.encoder(mel)
    torch.testing.assert_close(sound, wanted.encoder_last_hidden_state, atol=1e-4, rtol=1e-4)
    states = net.step(ids, net.remember(list(sound)), net.init_state(2))
    torch.testing.assert_close(states, wanted.last_hidden_state, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(net.logits(states), states @ theirs.decoder.embed_tokens.weight.T)


@torch.inference_mode()
def test_steps_one_by_one_are_those_taken_together(pair: tuple[Whisper, Any]) -> None:
    net, _ = pair
    ids = torch.randint(90, (1, 9))
    memory = net.remember([net.encoder(torch.randn(1, 80, 20))[0]])
    together = net.step(ids, memory, net.init_state(1))
    # With too little room at first, and one step that is taken back.
    state = net.init_state(1, capacity=2)
    first = net.step(ids[:, :4], memory, state)
    state.position = 3
    rest = [net.step(ids[:, i : i + 1], memory, state) for i in range(3, 9)]
    torch.testing.assert_close(torch.cat([first[:, :3], *rest], dim=1), together, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_row_hears_only_its_own_sound(pair: tuple[Whisper, Any]) -> None:
    net, _ = pair
    sounds = [net.encoder(torch.randn(1, 80, 2 * n))[0] for n in (5, 17, 9)]
    ids = torch.randint(90, (3, 4))
    memory = net.remember(sounds)
    together = net.step(ids, memory, net.init_state(3))
    for b, sound in enumerate(sounds):
        alone = net.step(ids[b : b + 1], net.remember([sound]), net.init_state(1))
        torch.testing.assert_close(together[b : b + 1], alone, atol=1e-5, rtol=1e-4)
    turned = torch.tensor([2, 0])
    moved = net.step(ids[turned], select_rows(memory, turned), net.init_state(2))
    torch.testing.assert_close(moved, together[turned], atol=1e-5, rtol=1e-4)


def test_heads_must_share_the_width() -> None:
    from lalia.errors import ConfigError

    with pytest.raises(ConfigError, match="num_heads"):
        Whisper.Config(dim=30, encoder_layers=1, decoder_layers=1, num_heads=4, ffn_dim=8, vocabulary_size=9)
