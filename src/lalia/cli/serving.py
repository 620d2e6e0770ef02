"""The command that serves."""

import os
from pathlib import Path
from typing import Annotated

import typer

from lalia.cli.console import show, tell
from lalia.cli.options import TALKING_MODEL, Device, Dtype, Json, load_model

__all__ = ["serve"]


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A model that keeps a conversation; again for more, the first is the default."),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Anything but this machine needs an API key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8998,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="Keys, one a line; LALIA_API_KEY holds one too.")
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option("--origin", help="Of pages that may use it besides its own: https://example.org."),
    ] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Sessions at once; more are told to come again.")] = 16,
    session_seconds: Annotated[float, typer.Option(min=1.0, help="The longest session.")] = 3600.0,
    max_tokens: Annotated[int, typer.Option(min=1, max=480, help="The longest reply, as text.")] = 160,
    grace: Annotated[float, typer.Option(min=0.0, help="Seconds for replies to end when it is stopped.")] = 10.0,
    ask: Annotated[bool, typer.Option("--ask", help="Ask again for what was not understood.")] = False,
    near: Annotated[bool, typer.Option("--near", help="Answer only who speaks close to the microphone.")] = False,
    asked: Annotated[
        bool, typer.Option("--asked", help="Answer only what is asked of an assistant, not what people tell others.")
    ] = False,
    wake: Annotated[
        list[str] | None, typer.Option("--wake", help='Answer only who calls it so: "hey lalia"; again for others.')
    ] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="Another text LM in the first model.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Tell of every session and request.")] = False,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: Json = False,
) -> None:
    """Serve models in real time: OpenAI's protocols, and a page to talk to."""
    from lalia.errors import MissingDependency
    from lalia.server import Settings

    # Threads of torch that spin while they wait would take the processor from those who receive and send. It is read
    # when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = Settings(
        host=host,
        keys=_keys(api_key_file),
        origins=tuple(origin or ()),
        sessions=sessions,
        session_seconds=session_seconds,
        max_tokens=max_tokens,
        grace=grace,
        ask=ask,
        near=near,
        asked=asked,
        wake=tuple(wake or ()),
    )
    try:
        from lalia.server.app import Server
        from lalia.server.running import run
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "server") from None
    from lalia.realtime import Silero
    from lalia.server.talkers import Talker, Talkers

    Silero()  # says at once where it is missing
    names = model or [TALKING_MODEL]
    tell(f"Loading {', '.join(names)} ...")
    talkers = [Talker(n, load_model(n, device, dtype, lm if i == 0 else None)) for i, n in enumerate(names)]
    if asked:
        for talker in talkers:
            _ = talker.model.asked  # says at once where one cannot tell
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{port}"

    def ready() -> None:
        told = f"Talk to it at {url}/ or with any client of OpenAI's API at {url}/v1 (Ctrl-C stops it)."
        show({"url": url, "models": [t.name for t in talkers]}, told, as_json=as_json)

    run(Server(Talkers(talkers), settings), host=host, port=port, ready=ready, verbose=verbose)


def _keys(path: Path | None) -> tuple[str, ...]:
    """:raises LaliaError: the file cannot be read."""
    from lalia.errors import ConfigError

    keys = [os.environ["LALIA_API_KEY"]] if os.environ.get("LALIA_API_KEY") else []
    if path is not None:
        try:
            keys += path.read_text().split()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The keys in {path} cannot be read ({error}). Give a text file.") from None
    return tuple(keys)
