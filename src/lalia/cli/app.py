"""The program: its commands, and what becomes of their mistakes."""

import contextlib
import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lalia.cli import comparing, corpora, listening, machine, measuring, serving, speech, talking, training
from lalia.cli.console import tell
from lalia.errors import LaliaError
from lalia.version import __version__

__all__ = ["app", "main"]

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""What the machine does not allow: nothing that lalia did wrong."""

app = typer.Typer(
    name="lalia",
    help="Speech language models: train them, talk to them, measure them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _lalia(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        print(f"lalia {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


_COMMANDS: dict[str, Callable[..., None]] = {
    "chat": talking.chat,
    "transcribe": talking.transcribe,
    "say": talking.say,
    "continue": speech.continue_,
    "resynthesize": speech.resynthesize,
    "score": speech.score,
    "tokenize": corpora.tokenize,
    "fit-units": corpora.fit_units,
    "fit-codec": corpora.fit_codec,
    "train": training.train,
    "eval": measuring.evaluate,
    "compare": comparing.compare,
    "listening-test": listening.listening_test,
    "serve": serving.serve,
    "recipes": training.recipes,
    "fetch": machine.fetch,
    "doctor": machine.doctor,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    :param arguments: those of the process when None, which then ends with the status that is returned otherwise:
        0 done, 2 the request was wrong (one line on standard error), 1 a fault of lalia, 130 interrupted.
    """
    status = _run(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        sys.exit(status)
    return status


def _run(arguments: Sequence[str]) -> int:
    # They would say on standard error what is of no use to who types a command.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    command = typer.main.get_command(app)
    try:
        with _warnings(), command.make_context("lalia", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.TyperException as error:
        tell(f"error: {_usage(error)}")
        return 2
    except LaliaError as error:
        tell(f"error: {error}")
        _explain()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        tell("Stopped.")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`lalia ... | head`): nothing is wrong, and there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _REFUSED:
            return _fault(error)
        name = f"{error.filename}: " if error.filename else ""
        tell(f"error: {name}{error.strerror}. Choose another place, or make room there.")
        _explain()
        return 2
    except Exception as error:  # noqa: BLE001  whatever it is, it is told in one line
        return _fault(error)
    return 0


def _usage(error: typer.TyperException) -> str:
    """What is wrong with a command line, and where to read how it is right."""
    context: Any = getattr(error, "ctx", None)
    program = context.command_path if context is not None else "lalia"
    text = " ".join(error.format_message().split())
    return f"{text}{'' if text.endswith(('.', '?', ')')) else '.'} See {program} --help."


def _fault(error: Exception) -> int:
    text = " ".join(str(error).split())
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    tell(f"fault: {what[:500]}. Please report this with the command; LALIA_DEBUG=1 shows where it happened.")
    _explain()
    return 1


def _explain() -> None:
    if _debugging():
        traceback.print_exc()


def _debugging() -> bool:
    return os.environ.get("LALIA_DEBUG", "0") not in ("", "0")


@contextlib.contextmanager
def _warnings() -> Iterator[None]:
    """Warnings of lalia as one line each; those of other packages only where somebody looks for a fault."""
    here = Path(__file__).resolve().parents[1]

    def line(message: Warning | str, category: type[Warning], filename: str, *rest: Any) -> None:  # noqa: ARG001
        if Path(filename).resolve().is_relative_to(here) or _debugging():
            tell(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = line  # type: ignore[assignment]
        yield
