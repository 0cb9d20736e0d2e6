"""The command `hpcsort completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]

# the first line keeps click from joining the others
_EXAMPLES = """\b
Examples:
  hpcsort completion bash > ~/.local/share/bash-completion/completions/hpcsort
  hpcsort completion zsh > ~/.zfunc/_hpcsort      (with fpath+=~/.zfunc before compinit in ~/.zshrc)
  hpcsort completion fish > ~/.config/fish/completions/hpcsort.fish
"""


@click.command("completion", short_help="Print a script that completes words in a shell.", epilog=_EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script with which the shell completes commands, options and files of hpcsort.

    To try it: source <(hpcsort completion bash).
    """
    from hpcsort.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "hpcsort", "_HPCSORT_COMPLETE").source())
