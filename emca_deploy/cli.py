"""The entry point: finds the command, loads only it, and turns errors into two lines and an exit code."""

import errno
import os
import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from emca_deploy._version import __version__
from emca_deploy.commands._console import echo
from emca_deploy.commands._group import Group
from emca_deploy.commands._roles import with_roles
from emca_deploy.errors import EmcaError, InputError, MissingError
from emca_deploy.interrupts import interrupt, was_interrupted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["COMMANDS", "main", "run"]

COMMANDS: dict[str, str] = {
    "models": "List all architectures with their size and published accuracy.",
    "export": "Export a checkpoint to ONNX, and check it against PyTorch.",
    "calibrate": "Quantize an ONNX model to INT8 for one backend.",
    "sensitivity": "Simulate what INT8 costs each layer and block.",
    "plan": "Plan how TensorRT builds an engine for a board or GPU.",
    "build": "Build a backend's engine from an ONNX model.",
    "profile": "Measure latency and throughput of artifacts, and compare them.",
    "layers": "Show time and precision of every layer.",
    "tune": "Find the fastest runtime settings on this machine.",
    "compare": "Compare two runs of `profile` on the same machine.",
    "validate": "Measure accuracy, and its drop against a reference.",
    "gate": "Decide whether results keep requirements.",
    "history": "Keep results, and show a figure over time.",
    "deploy": "Take a checkpoint to INT8 engines and a report, in one command.",
    "sweep": "Measure every combination of models, precisions, backends and targets of a plan.",
    "fleet": "Show the workers of a Dask cluster.",
    "demo": "Run `deploy` on a sample network and its images.",
    "report": "Make the report of a finished deployment again.",
    "bundle": "Put a deployment into one file or folder to hand over.",
    "inspect": "Show what a bundle holds.",
    "verify": "Compare every byte of a bundle with its checksums.",
    "run": "Run the best variant of a bundle on images.",
    "check-preprocess": "Name the mistakes in your own preprocessing.",
    "devices": "List named machines, and examine what each can do.",
    "doctor": "Show what this machine can do, and what to fix on it.",
    "completion": "Print a script that makes a shell complete commands.",
}
"""Every command, with its line in `--help`; listing them here loads none of them."""

INTERRUPTED = 130


class LazyGroup(Group):
    """A group whose commands are modules of `emca_deploy.commands`, imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the walk."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; it refuses files in two roles."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"emca_deploy.commands.{cmd_name.replace('-', '_')}").command
        return with_roles(cmd_name, command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        """Complete a command or an option without importing the commands."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="emca-deploy")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no notes; results, warnings and errors remain.")
def cli(quiet: bool) -> None:
    """Take a trained EMCA-ResNet to a measured, verified INT8 deployment.

    \b
    Examples:
      emca-deploy demo -o demo
      emca-deploy deploy checkpoint.pth --data calibration/ --val val/ -o out
    """


def _print_error(error: EmcaError) -> None:
    echo(f"error: {' '.join(error.problem.split())}", err=True)
    echo(f"  try: {' '.join(error.remedy.split())}", err=True)


def _usage_error(error: click.ClickException) -> EmcaError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else "emca-deploy"
    if isinstance(error, click.NoSuchOption) and error.option_name in ("-q", "--quiet"):
        return InputError(error.format_message(), f"put it first: {path.replace(' ', ' --quiet ', 1)}")
    return InputError(error.format_message(), f"{path} --help")


def _system_error(error: OSError | MemoryError) -> EmcaError:
    """Return the error for what the operating system refused where no other code expected it."""
    if isinstance(error, MemoryError):
        return MissingError("not enough memory", "free some, or use a machine with more")
    where = f"{error.filename}: " if error.filename is not None else ""
    remedies = {
        errno.EMFILE: "allow this process more open files: ulimit -n 1024",
        errno.ENFILE: "close other programs, or allow this system more open files",
        errno.ENOSPC: "free space there",
        errno.ENOMEM: "free memory, or use a machine with more",
    }
    remedy = remedies.get(error.errno or 0, "check that place and its permissions")
    return MissingError(f"{where}{error.strerror or error}", remedy)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code; SIGTERM cleans up as Ctrl-C does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    code = run(args)
    _close_output()
    if code == INTERRUPTED:
        # An interrupt that came while C code ran Python (PyTorch's import) makes the interpreter end with a signal instead of a
        # code. Everything is cleaned up by now.
        os._exit(code)
    sys.exit(code)


def _close_output() -> None:
    """Flush the output now: at its end the interpreter would report a failed flush a second time."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are printed as two lines."""
    try:
        outcome: Any = cli.main(args, prog_name="emca-deploy", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 prints the help by itself
            error.show()
        else:
            _print_error(_usage_error(error))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except (BrokenPipeError, SystemExit):  # click exits by itself when the reader of the output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (EmcaError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and was_interrupted(error):
            return _interrupted()
        shown = error if isinstance(error, EmcaError) else _system_error(error)
        _print_error(shown)
        return shown.exit_code
    return outcome if isinstance(outcome, int) else 0


def _interrupted() -> int:
    echo("interrupted: nothing half-written is left; run the same command again", err=True)
    return INTERRUPTED


if __name__ == "__main__":
    main()
