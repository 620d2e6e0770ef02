"""A server over the smallest mini, whose random weights understand everything and say much."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lalia.model import Model, dialogue
from lalia.recipes import find
from lalia.server.settings import Settings
from lalia.server.talkers import Talker, Talkers
from lalia.tokenizers import soft_text
from server_clients import Client, Running, loud_session
from tiny_mini import tiny_mini


@pytest.fixture(scope="session")
def talker() -> Talker:
    return Talker("mini", tiny_mini())


@pytest.fixture(scope="session")
def moshi() -> Talker:
    """It hears and speaks at once: noise, and letters."""
    torch.manual_seed(0)
    return Talker("moshi", Model(find("moshi").tiny()))


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recogniser of random weights hears is nonsense, and what a language model of such says goes in circles."""
    monkeypatch.setattr(soft_text.Heard, "understood", True)
    monkeypatch.setattr(dialogue, "in_circles", lambda ids: False)


@pytest.fixture
def client(talker: Talker) -> Iterator[Client]:
    made = Client(talker)
    yield made
    made.session.close()


@pytest.fixture
def new_client(talker: Talker) -> Callable[..., Client]:
    return lambda **settings: Client(talker, Settings(**{"max_tokens": 40, **settings}))


@pytest.fixture
def serve(talker: Talker) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(**settings: Any) -> Running:
        made = Running(
            Talkers([talker]), Settings(**{"max_tokens": 40, "grace": 1.0, **settings}), session=loud_session
        )
        running.append(made)
        return made

    yield start
    for one in running:
        one.close()
