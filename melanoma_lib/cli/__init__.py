"""The command `melanoma`: reads arguments, calls the library, prints errors as one line.

Every module of a room is imported where it is used: importing torch takes seconds, --help none.
"""

import argparse
import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence

from melanoma_lib import __version__
from melanoma_lib.cli import data, export, predict, refer, results, run, status
from melanoma_lib.cli.options import Parser
from melanoma_lib.core.errors import MelanomaError
from melanoma_lib.core.signals import interrupt_on_termination


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0, 1 when some images could not be read, 2 for bad input, 128 and the signal's number when
    interrupted: 130 by Ctrl-C.
    """
    os.environ["MPLBACKEND"] = "agg"  # figures are files; of an unknown one matplotlib would die
    for stream in (sys.stdout, sys.stderr):  # of a name they cannot show, they show the codes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    goes_on = "; the same command goes on from here" if options.resumes else ""
    try:
        with interrupt_on_termination():
            code = options.command(options) or 0
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except MelanomaError as error:
        print(f"melanoma: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a folder one may not write to
        print(f"melanoma: {error}{goes_on}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(f"\nmelanoma: interrupted{goes_on}", file=sys.stderr)
        return 128 + (error.args[0] if error.args else signal.SIGINT)


def build_parser() -> Parser:
    """The parser of all commands; each sets `command`, the function that executes it.

    `resumes` says whether a command that was interrupted goes on where it was.
    """
    about = "Train, calibrate, compare and explain classifiers of skin lesions on HAM10000."
    parser = Parser(prog="melanoma", description=about)
    parser.add_argument("--version", action="version", version=f"melanoma {__version__}")
    parser.set_defaults(resumes=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subject in (run, status, results, predict, refer, export, data):
        subject.add_commands(commands)
    shells = commands.add_parser("completion", help="a script that completes commands in a shell")
    shells.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    shells.set_defaults(command=print_completion)
    return parser


def print_completion(options: argparse.Namespace) -> None:
    """`melanoma completion`: a script for a shell, which also completes paths."""
    import shtab

    kinds = {"DIR": shtab.DIRECTORY, "FILE": shtab.FILE, "IMAGE": shtab.FILE}
    parser = build_parser()
    parsers = [parser]
    for each in parsers:
        for action in each._actions:  # nothing public lists them
            if action.metavar in kinds:
                action.complete = kinds[action.metavar]
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    print(shtab.complete(parser, options.shell))
