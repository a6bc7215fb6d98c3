"""The entry point: finds the command, loads only it, and turns our errors into two lines and an exit code."""

import errno
import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from emca_deploy._version import __version__
from emca_deploy.commands._console import echo
from emca_deploy.commands._roles import with_roles
from emca_deploy.errors import EmcaError, InputError, MissingError, UnknownNameError
from emca_deploy.interrupts import interrupt

__all__ = ["COMMANDS", "main", "run"]

COMMANDS: dict[str, str] = {
    "models": "List every architecture with parameters, GFLOPs and published accuracy.",
    "export": "Export a checkpoint to ONNX, checked against PyTorch.",
    "calibrate": "Quantize an ONNX model to INT8, placed for one backend.",
    "sensitivity": "What INT8 costs each layer and block, and what leaving it in float gains.",
    "plan": "How TensorRT must be told to build a model for a board or GPU, or why it cannot.",
    "build": "Build a backend's engine from an ONNX model.",
    "profile": "Measure latency and throughput; several artifacts are interleaved and compared.",
    "layers": "Time and precision of every layer, against what this machine can do.",
    "tune": "Find the runtime settings that are fastest here, and keep them in the manifest.",
    "compare": "Compare two runs of `profile` on the same machine.",
    "validate": "Measure accuracy, and what quantization cost against a reference.",
    "deploy": "The whole walk: export, calibrate, build, measure, validate, report.",
    "demo": "`deploy` on the bundled checkpoint and labelled images.",
    "report": "Draw the report of a finished deployment again.",
    "devices": "Machines with names, and what each of them can do.",
    "doctor": "What this machine can do, and which traps it has.",
}
"""Every command, with its line in `--help`. Kept here so that listing them loads none of them."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are modules of `emca_deploy.commands`, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the walk."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; it refuses files in two roles."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"emca_deploy.commands.{cmd_name}").command
        return with_roles(cmd_name, command)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that a command line begins with, or name the nearest.

        Raises:
            UnknownNameError: there is none of that name.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UnknownNameError.of("command", args[0], COMMANDS, "`emca-deploy --help` lists them")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emca-deploy")
def cli() -> None:
    """From a trained EMCA-ResNet to a measured, verified INT8 deployment.

    \b
    Start with:  emca-deploy demo -o demo
    Your model:  emca-deploy deploy checkpoint.pth --data calibration/ --val val/ -o out
    """


def _say(error: EmcaError) -> None:
    echo(f"error: {_one_line(error.problem)}", err=True)
    echo(f"  try: {_one_line(error.remedy)}", err=True)


def _usage_error(error: click.ClickException) -> EmcaError:
    """Return what click found wrong with a command line as an error of ours."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "emca-deploy"
    return InputError(error.format_message(), f"{path} --help")


def _system_error(error: OSError | MemoryError) -> EmcaError:
    """Return what the system refused where nobody foresaw it as an error of ours."""
    if isinstance(error, MemoryError):
        return MissingError("not enough memory", "free some, or use a machine with more")
    where = f"{error.filename}: " if error.filename is not None else ""
    remedies = {
        errno.EMFILE: "allow this process more open files: ulimit -n 1024",
        errno.ENFILE: "close other programs, or allow this system more open files",
        errno.ENOSPC: "free space there",
        errno.ENOMEM: "free memory, or use a machine with more",
    }
    return MissingError(
        f"{where}{error.strerror or error}", remedies.get(error.errno or 0, "check that place and its permissions")
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; a request to terminate cleans up as Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    code = run(args)
    _close_output()
    if code == INTERRUPTED:
        # Where the interrupt came while C code ran Python (PyTorch's import), the interpreter remembers it and ends itself with a
        # signal instead of the code; everything of ours is cleaned up by now.
        os._exit(code)
    sys.exit(code)


def _close_output() -> None:
    """Let the interpreter flush nothing at its end that cannot be written: an error of ours has been told by then."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors of ours are printed as two lines."""
    try:
        outcome: Any = cli.main(args, prog_name="emca-deploy", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 prints the help by itself
            error.show()
        else:
            _say(_usage_error(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        echo("interrupted: nothing half-written is left; run the same command again", err=True)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # click exits by itself when the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EmcaError, OSError, MemoryError) as error:
        told = error if isinstance(error, EmcaError) else _system_error(error)
        _say(told)
        return told.exit_code
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    main()
