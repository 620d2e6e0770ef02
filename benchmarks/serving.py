"""How many can talk to one server at once: spoken questions at the pace of speech, by as many clients as it takes.

Each client sends a bundled question as a microphone would, and plays the answer as it comes. What is measured is what
he notices: how long it is silent after his last word, and whether the answer stops in between. Beside mini, a cascade
of the same parts is served by the same server.
"""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.cases import Case
from benchmarks.measure import Failed

__all__ = ["SILENCE", "Load", "Serving", "measure_serving"]

_RATE, _PIECE = 24_000, 0.1
"""Hz, and seconds that are sent at once."""

SILENCE = 0.5
"""Seconds of silence after which the server takes a turn for over."""

LEVELS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Answer:
    """What one client noticed.

    :param first: seconds from his last word to the first sound.
    :param gaps: seconds in which the answer had stopped, and went on.
    :param spoken: seconds of the answer.
    """

    first: float
    gaps: float
    spoken: float


@dataclass(frozen=True)
class Load:
    """So many clients at once.

    :param busy: the part of the time in which the model worked.
    :param asked: questions, of which ``answers`` were answered.
    """

    clients: int
    answers: Sequence[Answer]
    asked: int
    busy: float
    memory: float


@dataclass(frozen=True)
class Serving:
    """One model.

    :param memory: MiB of the server after 10 sessions and after 200; None where that was not tried.
    """

    model: str
    loads: Sequence[Load]
    memory: tuple[float, float] | None


def measure_serving(case: Case, *, quick: bool, tell: Callable[[str], None]) -> Serving:
    """Serve a model, and talk to it."""
    model = case.name
    levels = LEVELS[:2] if quick else LEVELS
    rounds = 1 if quick else 2
    with _server(model) as (port, pid):
        loads = []
        for clients in levels:
            tell(f"{clients} at once")
            loads.append(asyncio.run(_load(port, pid, clients, rounds)))
        memory = None
        if not quick and model == "mini":
            tell("200 sessions")
            memory = asyncio.run(_sessions(port, pid))
    return Serving(model, loads, memory)


@contextlib.contextmanager
def _server(model: str) -> Iterator[tuple[int, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lalia", "serve", "--model", model, "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise Failed((process.stderr.read() if process.stderr else "").strip()[-300:] or "no server")
            yield port, process.pid
        finally:
            process.terminate()
            process.communicate()


async def _load(port: int, pid: int, clients: int, rounds: int) -> Load:
    # It brings torch, which no other group's clock should wait for.
    from lalia.evaluation.benchmarks import questions

    asked = questions()
    sounds = [_sound(asked[i % len(asked)].load()) for i in range(clients * rounds)]
    before, started = await _busy(port), time.perf_counter()
    # Not all in one breath: as people are, at different places of their turns.
    found = await asyncio.gather(*(_client(port, sounds[i::clients], 3.0 * i / clients) for i in range(clients)))
    busy = (await _busy(port) - before) / (time.perf_counter() - started)
    answers = [a for client in found for a in client if a is not None]
    return Load(clients, answers, clients * rounds, busy, _memory(pid))


async def _client(port: int, sounds: Sequence[np.ndarray], wait: float) -> list[Answer | None]:
    async with connect(f"ws://127.0.0.1:{port}/v1/realtime", max_size=None) as link:
        await link.recv()
        await asyncio.sleep(wait)
        return [await asyncio.wait_for(_ask(link, sound), 180) for sound in sounds]


async def _ask(link: ClientConnection, sound: np.ndarray) -> Answer | None:
    """Ask a question; what came of it, or None where it was not answered."""
    done, last = asyncio.Event(), 0.0

    async def speak() -> None:
        nonlocal last
        size, begun, i = round(_PIECE * _RATE), time.perf_counter(), 0
        while not done.is_set():
            piece = sound[i * size : (i + 1) * size]
            piece = np.pad(piece, (0, size - len(piece)))
            data = base64.b64encode((piece * 32767).astype("<i2").tobytes()).decode()
            await asyncio.sleep(max(begun + (i + 1) * _PIECE - time.perf_counter(), 0))
            if i * size < len(sound):
                last = time.perf_counter()
            await link.send(json.dumps({"type": "input_audio_buffer.append", "audio": data}))
            i += 1

    speaking = asyncio.create_task(speak())
    first = dry = gaps = spoken = 0.0
    try:
        while True:
            timeout = 10.0 + len(sound) / _RATE if not first else 120.0
            try:
                event: dict[str, Any] = json.loads(await asyncio.wait_for(link.recv(), timeout))
            except TimeoutError:
                return None
            if event["type"] == "error":
                raise Failed(event["error"]["message"])
            if event["type"] == "response.output_audio.delta":
                now, seconds = time.perf_counter(), len(event["delta"]) * 3 / 4 / 2 / _RATE
                gaps += max(now - dry, 0.0) if first else 0.0
                first, dry = first or now, max(dry, now) + seconds
                spoken += seconds
            elif event["type"] == "response.done":
                # He listens to the end before he asks the next one.
                await asyncio.sleep(max(dry - time.perf_counter(), 0))
                return Answer(first - last, gaps, spoken) if first else None
    finally:
        done.set()
        await speaking


async def _sessions(port: int, pid: int) -> tuple[float, float]:
    """Memory after 10 sessions, and after 200; four at a time, each asked something."""

    async def one(i: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/v1/realtime", max_size=None) as link:
            await link.recv()
            content = [{"type": "input_text", "text": f"What is {i} and {i % 7}?"}]
            item = {"type": "message", "role": "user", "content": content}
            await link.send(json.dumps({"type": "conversation.item.create", "item": item}))
            await link.send(json.dumps({"type": "response.create", "response": {"max_output_tokens": 12}}))
            while json.loads(await link.recv())["type"] != "response.done":
                pass

    found = []
    done = 0
    for until in (10, 200):
        while done < until:
            count = min(4, until - done)
            await asyncio.gather(*(one(done + i) for i in range(count)))
            done += count
        await asyncio.sleep(1.0)
        found.append(_memory(pid))
    return found[0], found[1]


async def _busy(port: int) -> float:
    """Seconds of work that the model has done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    return float(next(line for line in page.splitlines() if line.startswith("lalia_busy_seconds ")).split()[1])


def _memory(pid: int) -> float:
    """MiB that a process holds."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _sound(audio: Any) -> np.ndarray:
    """A question up to its last word."""
    samples = soxr.resample(audio.mono().samples[0, 0].numpy(), audio.sample_rate, _RATE)
    loud = np.abs(samples) > 0.02 * np.abs(samples).max()
    return np.asarray(samples[: int(np.flatnonzero(loud)[-1]) + 1], np.float32)
