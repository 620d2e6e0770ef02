"""Language models as judges: asked with messages, read with a parser, and counted where they fail."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import torch

from lalia.checkpoints import fetch
from lalia.checkpoints.quiet import quiet
from lalia.errors import ConfigError, JudgeError
from lalia.files import sha256

__all__ = ["Judge", "LocalJudge", "Message", "ServedJudge", "Verdict", "ask"]

Message = Mapping[str, str]
"""``{"role": "system" | "user" | "assistant", "content": text}``."""

V = TypeVar("V")

_LATER = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which the same question may be answered."""

_LONGEST_WAIT = 60.0


class Judge(Protocol):
    """Replies to messages. ``name`` and ``version`` go into every result that it had a part in."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    def __call__(self, messages: Sequence[Message], /) -> str:
        """The reply.

        :raises JudgeError: there is none this time; the item counts as failed, and the next is asked.
        """
        ...


@dataclass(frozen=True)
class Verdict(Generic[V]):
    """What a judge said of one item.

    :param values: what could be read of its replies.
    :param replies: all of them, word by word.
    :param failures: why there is no value: one for each time that there is none.
    """

    values: tuple[V, ...]
    replies: tuple[str, ...]
    failures: tuple[str, ...]


def ask(judge: Judge, messages: Sequence[Message], read: Callable[[str], V | None], *, times: int = 1) -> Verdict[V]:
    """Ask a judge, several times where chance has a part in its replies.

    :param read: finds the value in a reply; None where there is none.
    """
    values, replies, failures = [], [], []
    for _ in range(times):
        try:
            reply = judge(messages)
        except JudgeError as error:
            failures.append(str(error))
            continue
        replies.append(reply)
        value = read(reply)
        if value is None:
            failures.append(f"The judge said {reply[:80]!r}, which is no verdict.")
        else:
            values.append(value)
    return Verdict(tuple(values), tuple(replies), tuple(failures))


class ServedJudge:
    """A model behind any address that speaks the chat completions of OpenAI (vLLM, llama.cpp, Ollama, OpenAI, lalia).

    A question that meets a busy or broken server is asked again, after 1, 2, 4 ... s or what the server asks for; then
    the item fails. What will not get better (a wrong key, model or address) ends the evaluation at once.

    :param address: up to and with the version, ``https://api.openai.com/v1``.
    :param model: its name there; pin one with a date.
    :param key_variable: the environment variable with the key; where it is not set, none is sent.
    :param temperature: 0 is the most likely reply.
    :param seed: sent if given; servers need not heed it.
    :param retries: how often to ask again.
    :param timeout: seconds for one reply.
    :raises ConfigError: the address is not one of http or https.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int | None = None,
        max_tokens: int = 1024,
        retries: int = 3,
        timeout: float = 60.0,
    ) -> None:
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).netloc:
            raise ConfigError(f"The judge's address is {address!r}. Give one such as http://localhost:8000/v1.")
        if retries < 0 or timeout <= 0:
            raise ConfigError(f"The judge has {retries} retries and {timeout} s. Give 0 or more, and some time.")
        self.name = model
        self._address, self._key_variable = address.rstrip("/"), key_variable
        self._retries, self._timeout = retries, timeout
        sampling = {"temperature": temperature, "top_p": top_p, "seed": seed, "max_tokens": max_tokens}
        self._settings = {k: v for k, v in sampling.items() if v is not None}
        self._served: set[str] = set()

    @property
    def version(self) -> str:
        """Where, how, and which models the server says have answered so far."""
        settings = ", ".join(f"{k} {v}" for k, v in self._settings.items())
        served = f", served by {' and '.join(sorted(self._served))}" if self._served else ""
        return f"{urlsplit(self._address).netloc}, {settings}{served}"

    def __call__(self, messages: Sequence[Message]) -> str:
        """:raises ConfigError: the server refuses the key, the model or the address."""
        body = json.dumps({"model": self.name, "messages": [dict(m) for m in messages], **self._settings}).encode()
        reason = ""
        for attempt in range(self._retries + 1):
            try:
                return self._read(self._send(body))
            except urllib.error.HTTPError as error:
                # The body says which key or model is wrong; it may be long, and may be a page.
                detail = error.read(200).decode("utf-8", "replace").strip().replace("\n", " ")
                reason = f"status {error.code}: {detail}"
                if error.code not in _LATER:
                    raise ConfigError(
                        f"The judge {self.name} at {self._address} refuses ({reason}). "
                        f"Check the address, the model and {self._key_variable}."
                    ) from None
                wait = _seconds(error.headers.get("Retry-After"), 2.0**attempt)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, wait = str(error) or type(error).__name__, 2.0**attempt
            if attempt < self._retries:
                time.sleep(min(wait, _LONGEST_WAIT))
        raise JudgeError(
            f"The judge {self.name} at {self._address} did not answer in {self._retries + 1} tries ({reason}). "
            "See whether it runs."
        )

    def _send(self, body: bytes) -> Any:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self._key_variable):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self._address}/chat/completions", body, headers)  # noqa: S310  http(s) only
        with urllib.request.urlopen(request, timeout=self._timeout) as response:  # noqa: S310  see above
            return json.loads(response.read())

    def _read(self, data: Any) -> str:
        try:
            text = data["choices"][0]["message"]["content"]
        except (TypeError, KeyError, IndexError):
            raise ValueError(f"its reply has no message: {json.dumps(data)[:80]}") from None
        if not isinstance(text, str):
            raise ValueError(f"its message is {text!r}")
        self._served.add(str(data.get("model", self.name)))
        return text


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text is not None else otherwise
    except ValueError:  # a date
        return otherwise


class LocalJudge:
    """A causal language model with a chat template, from a folder or the hub, by transformers.

    :param model: the folder or hub id.
    :param temperature: 0 takes the most likely token each time; above, replies repeat with the seed.
    :param max_tokens: of a reply.
    :param device: where it computes.
    :raises WeightsError: the weights cannot be had.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        max_tokens: int = 256,
        device: str = "cpu",
    ) -> None:
        import transformers

        self._folder = fetch(model)
        self.name = Path(model).name
        weights = "+".join(sha256(file)[:12] for file in sorted(self._folder.glob("*.safetensors")))
        search = f"temperature {temperature}, top_p {top_p}, seed {seed}"
        self.version = f"weights {weights}, transformers {transformers.__version__}, {search}"
        self._temperature, self._top_p, self._seed = temperature, top_p, seed
        self._max_tokens, self._device = max_tokens, device
        self._parts: tuple[Any, Any] | None = None
        self._asked = 0

    def __call__(self, messages: Sequence[Message]) -> str:
        model, tokenizer = self._load()
        try:
            prompt = tokenizer.apply_chat_template(
                [dict(m) for m in messages], add_generation_prompt=True, return_tensors="pt", return_dict=True
            ).to(self._device)
        except ValueError as error:
            raise ConfigError(f"{self.name} has no chat template ({error}). Give an instruction-tuned model.") from None
        sampling: dict[str, Any] = {"do_sample": False}
        if self._temperature > 0:
            sampling = {"do_sample": True, "temperature": self._temperature, "top_p": self._top_p}
        self._asked += 1
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(self._seed + self._asked)
            ids = model.generate(**prompt, max_new_tokens=self._max_tokens, **sampling)
        text: str = tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        return text.strip()

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            with quiet():
                model = AutoModelForCausalLM.from_pretrained(self._folder).eval().to(self._device)
                self._parts = model, AutoTokenizer.from_pretrained(self._folder)
        return self._parts
