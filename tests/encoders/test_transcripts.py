import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lalia.encoders.beams import search
from lalia.encoders.recognizer import Recognizer
from lalia.encoders.transcripts import cut_loop, most_tokens, read

SHAPE = {
    "model_type": "whisper",
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "vocab_size": 99,
    "max_target_positions": 40,
}
RECOGNIZER: Recognizer = Recognizer.Config("tiny", pretrained=False, architecture=SHAPE).build()

pytestmark = pytest.mark.usefixtures("one_thread")


def sound(seed: int, n: int = 16000) -> torch.Tensor:
    noise = 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))
    return RECOGNIZER.listen(noise, silence=1600)


def test_what_is_read_is_what_is_likeliest_each_time() -> None:
    net, rules = RECOGNIZER.net, RECOGNIZER.rules
    x = sound(0)
    (made,) = read(RECOGNIZER, [x], [20], keep=5)
    ids = list(rules.prompt)
    for step in range(len(made.ids)):
        states = net.step(torch.tensor([ids]), net.remember([x]), net.init_state(1))
        logits = net.logits(states)[0, -1]
        logits[rules.end + 1 :] = -torch.inf
        log_probs = logits.log_softmax(-1)
        wanted = log_probs.topk(5)
        assert made.likely[step].tolist() == wanted.indices.tolist()
        torch.testing.assert_close(made.log_probs[step], wanted.values, atol=1e-4, rtol=1e-4)
        ids.append(int(log_probs.argmax()))
    assert made.ids == ids[len(rules.prompt) :]
    first = net.logits(net.step(torch.tensor([[rules.prompt[0]]]), net.remember([x]), net.init_state(1)))[0, 0]
    assert abs(made.no_speech - float(first.softmax(-1)[rules.no_speech])) < 1e-5
    assert abs(made.confidence - float(made.log_probs[:, 0].mean())) < 1e-6


def test_rows_of_a_batch_are_read_as_if_alone() -> None:
    sounds = [sound(seed, n) for seed, n in ((1, 16000), (2, 9000), (3, 30000))]
    together = read(RECOGNIZER, sounds, [9, 30, 20])
    for x, most, row in zip(sounds, (9, 30, 20), together, strict=True):
        assert row.ids == read(RECOGNIZER, [x], [most])[0].ids
        assert len(row.ids) <= most
    assert len({tuple(row.ids) for row in together}) == 3
    assert not read(RECOGNIZER, [], [])


@settings(max_examples=12)
@given(seed=st.integers(0, 5), kept=st.integers(0, 12), more=st.lists(st.integers(0, 98), max_size=40))
def test_a_draft_changes_nothing(seed: int, kept: int, more: list[int]) -> None:
    x = sound(seed)
    (alone,) = read(RECOGNIZER, [x], [18])
    (made,) = read(RECOGNIZER, [x], [18], draft=[*alone.ids[:kept], *more])
    assert (made.ids, made.looped) == (alone.ids, alone.looped)
    assert made.likely[:, 0].tolist() == alone.ids
    torch.testing.assert_close(made.log_probs, alone.log_probs, atol=1e-4, rtol=1e-4)


def test_a_draft_that_is_right_costs_one_pass() -> None:
    x, passes = sound(0), []
    (alone,) = read(RECOGNIZER, [x], [20])
    hook = RECOGNIZER.net.decoder.register_forward_hook(lambda *_: passes.append(1))
    read(RECOGNIZER, [x], [20], draft=alone.ids)
    hook.remove()
    assert len(passes) == 1


def test_circles_are_cut_where_they_have_gone_round_once() -> None:
    said = list(range(100, 130))
    assert cut_loop(said) is None
    assert cut_loop([*said, *[1, 2, 3] * 3]) is None
    assert cut_loop([*said, *[1, 2, 3] * 4]) == 33
    assert cut_loop([*said, *[7] * 11]) is None
    assert cut_loop([*said, *[7] * 12]) == 31
    assert cut_loop(list(range(16)) * 4) == 16
    assert cut_loop([1, 2] * 6) == 2
    assert cut_loop([]) is None


def test_only_text_comes_and_only_so_much_of_it() -> None:
    assert most_tokens(32000, 16000) == 40
    for seed in range(5):
        (made,) = read(RECOGNIZER, [sound(seed)], [12])
        assert max(made.ids, default=0) < RECOGNIZER.rules.end
        assert made.looped == (len(made.ids) == 12)
    # No more than the decoder has steps for, whatever is asked.
    assert all(len(read(RECOGNIZER, [sound(seed)], [10_000])[0].ids) <= 38 for seed in range(2))


def test_a_beam_of_one_reads_as_greedy_search_does() -> None:
    for seed in range(3):
        (alone,) = read(RECOGNIZER, [sound(seed)], [14])
        made = search(RECOGNIZER, sound(seed), 14, beams=1)[0]
        if not alone.looped:
            assert list(made.ids) == alone.ids
        else:
            assert list(made.ids[: len(alone.ids)]) == alone.ids


def test_a_beam_is_followed_as_it_is_defined() -> None:
    # Step by step without a cache: of all continuations the best 2 W, of which those that end are put aside.
    net, rules = RECOGNIZER.net, RECOGNIZER.rules
    for seed, beams in ((0, 2), (4, 4)):
        memory = net.remember([sound(seed)])
        going: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
        ended: list[tuple[tuple[int, ...], float]] = []
        for step in range(9):
            all_of_them = []
            for ids, total in going:
                states = net.step(torch.tensor([[*rules.prompt, *ids]]), memory, net.init_state(1))
                log_probs = (net.logits(states)[0, -1] + RECOGNIZER.forbidden).log_softmax(-1)
                all_of_them += [((*ids, i), total + float(p)) for i, p in enumerate(log_probs)]
            best = sorted(all_of_them, key=lambda x: -x[1])[: 2 * beams]
            ended += [(ids[:-1], total) for ids, total in best if ids[-1] == rules.end]
            if step < 8:
                going = [x for x in best if x[0][-1] != rules.end][:beams]
        wanted = sorted(ended, key=lambda x: -x[1] / (len(x[0]) + 1))[:beams] or going
        found = search(RECOGNIZER, sound(seed), 8, beams=beams)
        assert [r.ids for r in found] == [ids for ids, _ in wanted]
