"""`emca-deploy completion`."""

import click

from emca_deploy.commands._console import echo

__all__ = ["command"]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script for SHELL that completes commands, options, their values and files.

    \b
    Examples:
      eval "$(emca-deploy completion bash)"      # in ~/.bashrc
      eval "$(emca-deploy completion zsh)"       # in ~/.zshrc, after compinit
      emca-deploy completion fish \\
          > ~/.config/fish/completions/emca-deploy.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    echo(kind(ctx.find_root().command, {}, "emca-deploy", "_EMCA_DEPLOY_COMPLETE").source())
