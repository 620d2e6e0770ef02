"""What the papers make streaming is so here: in pieces as in one, and as late as they say."""

import torch

from lalia.layouts import Grid
from lalia.lm import CTC, Sampler, Sampling, SpeechLM, collect
from lalia.lm.generation import HIDDEN
from lalia.model import Model
from lalia.recipes import find
from lalia.streams import Discrete, Streams, TokenSequence


def random_streams(lm: SpeechLM, frames: int) -> Streams:
    generator = torch.Generator().manual_seed(0)
    out: Streams = {}
    for name in lm.layout.streams:
        kind = lm.specs[name].kind
        assert isinstance(kind, Discrete)
        shape = (1, kind.num_codebooks, frames)
        out[name] = TokenSequence(torch.randint(kind.codebook_size, shape, generator=generator), torch.tensor([frames]))
    return out


def only_lm(name: str) -> SpeechLM:
    torch.manual_seed(0)
    lm = next(iter(Model(find(name).tiny()).lms.values()))
    assert isinstance(lm, SpeechLM)
    return lm


def in_steps(lm: SpeechLM, grid: Grid) -> torch.Tensor:
    state = lm.init_state(1)
    pieces = [lm(grid.steps(0, 1), state)]
    pieces += [lm(grid.steps(s, s + 1), state, first=False) for s in range(1, grid.num_steps - 1)]
    return torch.cat(pieces, dim=-2)


@torch.inference_mode()
def test_models_that_hear_and_speak_at_once_work_step_by_step() -> None:
    for name in ("moshi", "dgslm"):
        lm = only_lm(name)
        grid = lm.pack(random_streams(lm, 20))
        assert torch.allclose(in_steps(lm, grid), lm(grid), atol=1e-4), name


@torch.inference_mode()
def test_moshi_speaks_two_frames_late() -> None:
    """160 ms (arXiv:2410.00037 §3.4): a frame must be over, and its acoustic codes come one frame after it."""
    lm = only_lm("moshi")
    user = {"user": random_streams(lm, 10)["user"]}
    made = lm.generate(user, complete=("user",), max_steps=6, sampler=Sampler(Sampling(temperature=0.0)))
    ready = ["moshi" in part for part in made]
    # Words are there at once; sound is complete from the second step on, a frame at each.
    assert ready == [False, True, True, True, True, True]
    assert find("moshi").streams["moshi"].spec.frame_rate == 12.5
    assert find("moshi").lms["helium"].layout.delays == (0, *(0, 1, 1, 1, 1, 1, 1, 1) * 2)  # type: ignore[attr-defined]


@torch.inference_mode()
def test_mini_omni_writes_a_step_ahead_of_each_code_of_its_voice() -> None:
    """Audio layer i comes i + 1 steps after the text (arXiv:2408.16725 §3.2)."""
    published = find("mini_omni").lms["lm"].layout.parts[1]  # type: ignore[attr-defined]
    assert published.delays == (0, *(i + 1 for i in range(7)))
    assert find("mini_omni").streams["speech"].spec.kind == Discrete(4096, 7)
    lm = only_lm("mini_omni")
    question = {"question": TokenSequence(torch.randn(1, 5, lm.specs["question"].kind.dim), torch.tensor([5]))}  # type: ignore[union-attr]
    sampler = Sampler(Sampling(temperature=1.0)).ban(text=((256, 257),), speech=((16, 17),))
    made = list(lm.generate(question, max_steps=12, sampler=sampler))
    assert ["text" in part for part in made] == [True] * 12
    assert ["speech" in part for part in made] == [False] * 7 + [True] * 5
    grid = lm.pack(collect(iter(made)) | question)
    for i in range(7):
        # After 5 steps of a question and i + 1 of delay, frame by frame.
        assert grid.positions["speech"][0, i, 5 + i + 1 :][:5].tolist() == [0, 1, 2, 3, 4]
        assert not grid.present("speech")[0, i, : 5 + i + 1].any()


@torch.inference_mode()
def test_llama_omni_finds_units_while_it_writes() -> None:
    torch.manual_seed(0)
    model = Model(find("llama_omni").tiny())
    llm, decoder = model.lms["llm"], model.lms["speech_decoder"]
    assert isinstance(llm, SpeechLM)
    assert isinstance(decoder, SpeechLM)
    head = decoder.head("units")
    assert isinstance(head, CTC)
    question = {"question": TokenSequence(torch.randn(1, 12, llm.specs["question"].kind.dim), torch.tensor([12]))}  # type: ignore[union-attr]
    frames, units = [], []
    state, labels = decoder.init_state(1), head.init_state(1)
    for part in llm.generate(question, max_steps=15, hidden_of="text", sampler=Sampler(Sampling(temperature=1.0))):
        if HIDDEN in part:
            # As each token comes, so do the units along it.
            frames.append(part[HIDDEN].values)
            grid = decoder.pack({"llm.hidden": part[HIDDEN]})
            hidden = decoder(grid, state)
            units += head.decode(hidden, torch.tensor([hidden.shape[1]]), labels).values[0, 0].tolist()
    whole = torch.cat(frames, dim=1)
    assert whole.shape[1] == 15
    together = decoder(decoder.pack({"llm.hidden": TokenSequence(whole, torch.tensor([15]))}))
    offline = head.decode(together, torch.tensor([together.shape[1]]))
    assert units == offline.values[0, 0].tolist()
    assert units
