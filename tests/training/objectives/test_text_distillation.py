"""Distillation of what is typed into what is heard: when there is nothing to learn, and what is learned."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lalia.errors import RecipeError
from lalia.lm import SpeechLM
from lalia.recipe import build_lms
from lalia.recipes import find
from lalia.streams import Streams, TokenSequence, pad_batch
from lalia.training import DistillText
from lalia.training.objectives.text_distillation import TextDistillation

pytestmark = pytest.mark.usefixtures("one_thread")
WORDS = ("how far is the moon", "who wrote it", "why")


@pytest.fixture
def lm() -> SpeechLM:
    torch.manual_seed(0)
    made = build_lms(find("mini").tiny())["llm"]
    assert isinstance(made, SpeechLM)
    with torch.no_grad():
        for p in made.backbone.parameters():
            # Far enough from nothing that what was said matters.
            p.mul_(4 if p.ndim > 1 else 1)
    return made.eval().requires_grad_(False)


def objective(lm: SpeechLM, **changes: Any) -> TextDistillation:
    settings: dict[str, Any] = {"reply_tokens": 5, "weights": {"kl": 1.0, "hidden": 1.0}} | changes
    return TextDistillation(lm, heard="question", typed="typed", place="before", reply="text", **settings)


def codes(*texts: str) -> TokenSequence:
    rows = [torch.tensor([[list(text.encode())]]) for text in texts]
    return pad_batch([TokenSequence(x, torch.tensor([x.shape[2]])) for x in rows])


def as_heard(lm: SpeechLM, texts: tuple[str, ...], change: Tensor | None = None) -> TokenSequence:
    """The LM's own embeddings of the texts, or a linear map of them."""
    table: Any = lm.tables["text"]
    rows = [table.embedding.weight[torch.tensor(list(text.encode()))].detach() for text in texts]
    rows = rows if change is None else [x @ change for x in rows]
    return pad_batch([TokenSequence(x[None], torch.tensor([len(x)])) for x in rows])


def streams(lm: SpeechLM, change: Tensor | None = None, texts: tuple[str, ...] = WORDS) -> Streams:
    n = len(texts)
    return {
        "typed": codes(*texts),
        "question": as_heard(lm, texts, change),
        "before": codes(*["Be brief. "] * n),
        "after": codes(*["\n"] * n),
    }


def test_what_is_heard_as_it_is_typed_leaves_nothing_to_learn(lm: SpeechLM) -> None:
    whole = objective(lm).losses("model", {"streams": streams(lm)})
    assert float(whole["kl"]) < 1e-4
    assert float(whole["hidden"]) < 1e-4
    wrong = streams(lm) | {"question": as_heard(lm, ("something else", "and this", "no"))}
    other = objective(lm).losses("model", {"streams": wrong})
    assert float(other["kl"]) > 100 * float(whole["kl"])
    assert float(other["hidden"]) > 100 * float(whole["hidden"])


def test_a_batch_is_the_sum_of_its_rows(lm: SpeechLM) -> None:
    change = 0.8 * torch.linalg.qr(torch.randn(64, 64))[0]
    together = objective(lm)
    whole = together.losses("model", {"streams": streams(lm, change)})
    assert together.counts({"streams": streams(lm, change)}) == {"kl": 3.0, "hidden": 3.0}
    alone = [objective(lm).losses("model", {"streams": streams(lm, change, (text,))}) for text in WORDS]
    for term, total in whole.items():
        assert float(total) == pytest.approx(sum(float(one[term]) for one in alone), rel=1e-2)


def test_the_teacher_is_asked_once(lm: SpeechLM, monkeypatch: pytest.MonkeyPatch) -> None:
    made = objective(lm)
    first = made.losses("model", {"streams": streams(lm)})
    monkeypatch.setattr(lm, "generate", None)
    again = made.losses("model", {"streams": streams(lm)})
    assert {n: float(x) for n, x in first.items()} == {n: float(x) for n, x in again.items()}


def test_the_input_learns_and_nothing_else(lm: SpeechLM) -> None:
    change = torch.linalg.qr(torch.randn(64, 64))[0]
    batch = {"streams": streams(lm, change)}
    made = objective(lm)
    (adapter,) = made.modules("model")
    assert adapter is lm.inputs["question"]
    adapter.requires_grad_(True)
    before = {n: p.clone() for n, p in lm.named_parameters()}
    optimizer = torch.optim.Adam(adapter.parameters(), 3e-3)
    levels = []
    for _ in range(30):
        loss = sum(made.losses("model", batch).values())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        levels.append(float(loss.detach()))
    assert levels[-1] < 0.3 * levels[0]
    changed = {n for n, p in lm.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"inputs.question.first.weight", "inputs.question.first.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lm": "other"}, "distils LM 'other', but there is llm. Name one of them"),
        ({"heard": "before"}, "needs stream 'before' of the LM to enter through a Project"),
        ({"place": "question"}, "needs stream 'question' of the LM to enter by a Lookup"),
        ({"reply": "after"}, "needs stream 'after' of the LM to have a Linear head"),
        ({"reply_tokens": 0}, "compares replies of 0 tokens. Give at least 1"),
        ({"typed": "letters"}, "needs a stream 'letters' of the same codes as 'before'"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    recipe = find("mini")
    stages = tuple(
        replace(s, task=DistillText(**changes)) if isinstance(s.task, DistillText) else s for s in recipe.stages
    )
    with pytest.raises(RecipeError, match=message):
        replace(recipe, stages=stages)
