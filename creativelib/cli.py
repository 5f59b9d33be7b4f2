"""The command line: finds the command that was asked for and runs it. Each command has a module of its own.

A command's module defines ``register(commands)``: it adds a parser to ``commands`` and sets ``run``, a function that takes the
parsed arguments and returns the exit code::

    def register(commands) -> None:
        parser = commands.add_parser("create", help="search for an untypical picture of a subject")
        parser.add_argument("--steps", type=whole(1), default=50)
        parser.set_defaults(run=create)

Its other imports stand inside of that function, so that ``creativelib --help`` does not wait for torch.
"""

import importlib
import io
import sys
import warnings

from creativelib import __version__
from creativelib.cli_arguments import Parser
from creativelib.machine import first_line, memory_is_full

# modules, in the order in which help lists their commands
COMMANDS = ("creativelib.cli_create", "creativelib.cli_compare", "creativelib.study.cli")


def build_parser() -> Parser:
    """The parser of ``creativelib`` with all commands."""
    parser = Parser(prog="creativelib", description="Creative image generation with a diffusion model.")
    parser.add_argument("--version", action="version", version=f"creativelib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        importlib.import_module(module).register(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``creativelib``; returns 0, 2 for a mistake in what was asked, 130 when interrupted.

    A command reports what is wrong by ValueError or OSError with one clear sentence; it is printed as one line.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that knows not all letters shows them as codes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        chosen = build_parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _show
            return chosen.run(chosen)
    except (ValueError, OSError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "creativelib").partition(".")[0] == "creativelib":
            raise
        message = f"the package {error.name} is missing; run 'make setup', or pip install -e '.[notebooks]'"
    except (MemoryError, RuntimeError) as error:
        if not memory_is_full(error):
            raise
        message = f"the memory is full ({first_line(error)}); close other programs"
    except KeyboardInterrupt:
        print("creativelib: interrupted", file=sys.stderr)
        return 130
    print("creativelib: " + " ".join(message.split()), file=sys.stderr)
    return 2


def _show(message, *_, **__) -> None:
    """A warning as one line, without the source line that it came from."""
    print("creativelib: warning: " + " ".join(str(message).split()), file=sys.stderr)
