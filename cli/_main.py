"""Entry point: exit codes and one-line errors for every command."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from odc_stats_gpu.errors import Cancelled, DataError, OdcStatsError

DONE, SOME_FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 3
_CTRL_C = 130  # what Typer makes of a KeyboardInterrupt
_NO_WORKER = {"--help", "--dry-run", "--dryrun", "--cluster", "--scheduler", "--from-sqs",
              "--profile"}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 1 some failed, 2 wrong use, 3 interrupted."""
    with _terminable():
        try:
            return _main(arguments)
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED


def _main(arguments: Sequence[str] | None) -> int:
    args = [_positional(a) for a in (sys.argv[1:] if arguments is None else arguments)]
    if args[:1] == ["queue-status"]:
        args = _watch(args)
    if args[:1] == ["run"] and not _NO_WORKER & {a.partition("=")[0] for a in args}:
        from odc_stats_gpu.engine import prestart

        prestart()  # it imports NumPy and GDAL while this process imports the command line
    try:
        return _invoke(args)
    finally:
        if "odc_stats_gpu.engine._start" in sys.modules:
            from odc_stats_gpu.engine import drop_prestarted

            drop_prestarted()


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, from its first moment on: cleaned up, exit code 3."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _positional(argument: str) -> str:
    """A slice from the end, `-10:`, is no option: a space in front tells the parser so."""
    return f" {argument}" if re.fullmatch(r"-\d+:[-\d:]*", argument) else argument


def _watch(args: list[str]) -> list[str]:
    """`--watch 5` and `--watch=5` as two options: the parser knows none with an optional value."""
    out: list[str] = []
    for arg in args:
        flag, equals, value = arg.partition("=")
        if flag == "--watch" and equals:
            out += ["--watch", f"--interval={value}"]
        elif out[-1:] == ["--watch"] and re.fullmatch(r"\d+(\.\d*)?|\.\d+", arg):
            out.append(f"--interval={arg}")
        else:
            out.append(arg)
    return out


def _invoke(args: list[str]) -> int:
    import typer
    from typer.main import get_command

    from odc_stats_gpu.cli._app import app

    # Typer may carry its own copy of click: the class is found through what Typer exports
    click_exception: Any = typer.BadParameter.__mro__[2]
    try:
        command = get_command(app)
        code = command.main(args, prog_name="odc-stats-gpu", standalone_mode=False, obj=args)
        if code == _CTRL_C:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else DONE
    except typer.Exit as exc:
        return int(exc.exit_code)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except click_exception as exc:
        if type(exc).__name__ == "NoArgsIsHelpError":  # a group alone: its message is the help
            sys.stderr.write(exc.format_message() + "\n")
        else:
            _say(f"{_with_value(exc, args)} (see `{_command_path(exc)} --help`)")
        return WRONG_USE
    except Cancelled as exc:
        _say(str(exc))
        return INTERRUPTED
    except OdcStatsError as exc:
        if "--debug" in args:
            raise
        _say(str(exc))
        return SOME_FAILED if isinstance(exc, DataError) else WRONG_USE
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        return DONE
    except Exception as exc:
        if "--debug" in args:
            raise
        text = " ".join(str(exc).split()) or "no message"
        _say(f"{type(exc).__name__}: {text} (a bug? repeat with --debug for the traceback)")
        return SOME_FAILED


def _with_value(exc: Any, args: list[str]) -> str:
    """The parser's message, without its wordiness and with the value that it leaves out."""
    text = str(exc.format_message()).replace("Value error, ", "")
    text = re.sub(r", unable to parse string as an? \w+", "", text)
    for option in getattr(getattr(exc, "param", None), "opts", ()):
        for arg, following in zip(args, [*args[1:], ""], strict=True):
            name, equals, value = arg.partition("=")
            if name == option and option.startswith("-"):
                given = value if equals else following
                return text if repr(given) in text else f"{text}, not {given!r}"
    return text


def _say(text: str) -> None:
    """One line on stderr, never wrapped."""
    with suppress(OSError):  # a full disk under the log changes no exit code
        sys.stderr.write(f"error: {' '.join(text.split())}\n")


def _command_path(exc: object) -> str:
    context = getattr(exc, "ctx", None)
    return str(context.command_path) if context is not None else "odc-stats-gpu"


def redrive() -> int:
    """Entry point of `redrive-queue`, the command that operators know by that name."""
    return main(["redrive-queue", *sys.argv[1:]])
