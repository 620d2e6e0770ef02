import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lalia.errors import ConfigError, JudgeError
from lalia.evaluation.judging import LocalJudge, Message, ServedJudge, ask

ASKED = [{"role": "user", "content": "1 or 2?"}]


class Server:
    """Answers with what it is given, in order, and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any, Mapping[str, str]]] = []
        self.heard: list[tuple[str, Mapping[str, str], Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.heard.append((self.path, dict(self.headers), body))
                status, data, headers = outer.answers.pop(0)
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data if isinstance(data, bytes) else json.dumps(data).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/v1"

    def says(self, text: str | None) -> None:
        self.answers.append((200, {"model": "judge-1", "choices": [{"message": {"content": text}}]}, {}))

    def fails(self, status: int, data: Any = b"why", **headers: str) -> None:
        self.answers.append((status, data, headers))


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.http.shutdown()
    found.http.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr("lalia.evaluation.judging.time.sleep", waited.append)
    return waited


def test_asks_as_openai_does(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    server.says("2")
    judge = ServedJudge(server.address + "/", "judge", key_variable="JUDGE_KEY", temperature=0.5, top_p=0.95, seed=7)
    assert judge(ASKED) == "2"
    path, headers, body = server.heard[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body == {
        "model": "judge", "messages": ASKED, "temperature": 0.5, "top_p": 0.95, "seed": 7, "max_tokens": 1024
    }  # fmt: skip
    assert judge.name == "judge"
    assert "temperature 0.5" in judge.version
    assert "served by judge-1" in judge.version
    assert "secret" not in judge.version


def test_no_key_is_sent_where_there_is_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.says("1")
    ServedJudge(server.address, "judge")(ASKED)
    assert "Authorization" not in server.heard[0][1]


def test_asks_again_and_waits_as_long_as_it_is_told(server: Server, waits: list[float]) -> None:
    server.fails(429, **{"Retry-After": "7"})
    server.fails(503)
    server.fails(200, b"no json")
    server.says("2")
    assert ServedJudge(server.address, "judge")(ASKED) == "2"
    assert waits == [7.0, 2.0, 4.0]


def test_gives_up_with_one_clear_error(server: Server, waits: list[float]) -> None:
    for _ in range(2):
        server.says(None)
    with pytest.raises(JudgeError, match=r"judge at .* did not answer in 2 tries \(its message is None\)\. See"):
        ServedJudge(server.address, "judge", retries=1)(ASKED)
    assert waits == [1.0]
    closed = ServedJudge("http://127.0.0.1:9/v1", "judge", retries=0)
    with pytest.raises(JudgeError, match="did not answer in 1 tries"):
        closed(ASKED)


def test_a_wrong_key_ends_it(server: Server) -> None:
    server.fails(401, b"bad key")
    with pytest.raises(ConfigError, match=r"refuses \(status 401: bad key\)\. Check the address"):
        ServedJudge(server.address, "judge")(ASKED)
    for address in ("localhost:8000", "file:///etc/passwd", ""):
        with pytest.raises(ConfigError, match="address is"):
            ServedJudge(address, "judge")
    with pytest.raises(ConfigError, match="retries"):
        ServedJudge(server.address, "judge", retries=-1)


def test_failures_are_counted_and_not_dropped() -> None:
    class Judge:
        name, version = "scripted", "1"
        replies = iter(["4", "no idea", None, "5"])

        def __call__(self, messages: Sequence[Message]) -> str:
            reply = next(self.replies)
            if reply is None:
                raise JudgeError("It is busy. Wait.")
            return reply

    verdict = ask(Judge(), ASKED, lambda r: int(r) if r.isdigit() else None, times=4)
    assert verdict.values == (4, 5)
    assert verdict.replies == ("4", "no idea", "5")
    assert verdict.failures == ("The judge said 'no idea', which is no verdict.", "It is busy. Wait.")


def test_a_local_model(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = ["<unk>", "<eos>", "user", "1", "2", "or", "?"]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", eos_token="<eos>")
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=1, bos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no chat template"):
        LocalJudge(tmp_path)(ASKED)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    greedy = LocalJudge(tmp_path, max_tokens=4)
    assert greedy(ASKED) == greedy(ASKED)
    assert greedy.name == tmp_path.name
    assert greedy.version.startswith("weights ")
    drawn = [LocalJudge(tmp_path, temperature=5.0, max_tokens=8) for _ in range(2)]
    once, twice = ([judge(ASKED) for _ in range(4)] for judge in drawn)
    assert once == twice
    assert len(set(once)) > 1
