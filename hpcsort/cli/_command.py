"""What all commands have in common: --json, --quiet, and a hint where a file is given without an option."""

from __future__ import annotations

import io
import json
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

__all__ = ["ScriptedCommand"]


class ScriptedCommand(click.Command):
    """A command with --json and --quiet, for scripts.

    Its function returns what has come out, paths and key figures, on rank 0, and None elsewhere. With --json standard
    output holds that alone, as one object, and what is told to people goes to standard error. A command that has no
    option --quiet of its own gets one by which nothing is told.
    """

    allow_extra_args = True  # refused below, with a hint

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._silences = all(param.name != "quiet" for param in self.params)
        if self._silences:
            self.params.append(click.Option(["--quiet"], is_flag=True, help="Print nothing but errors."))
        told = "Print the result as one JSON object; all other text goes to standard error."
        self.params.append(click.Option(["--json", "as_json"], is_flag=True, help=told))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse a file that no option names, with the option that was probably meant."""
        rest = super().parse_args(ctx, args)
        if rest and not ctx.resilient_parsing:
            options = (param for param in self.params if isinstance(param, click.Option))
            meant = next((option.opts[0] for option in options if isinstance(option.type, click.Path)), None)
            hint = f"; did you mean '{meant} {rest[0]}'?" if meant and len(rest) == 1 else "; leave it out."
            ctx.fail(f"'{' '.join(rest)}' belongs to no option{hint}")
        return rest

    def invoke(self, ctx: click.Context) -> None:
        """Run the command and print its result where a script asks for it."""
        as_json = ctx.params.pop("as_json")
        silent = self._silences and ctx.params.pop("quiet")
        with redirect_stdout(io.StringIO() if silent else sys.stderr if as_json else sys.stdout):
            result = super().invoke(ctx)
        if as_json and result is not None:
            click.echo(json.dumps(_plain(result), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    """Turn a result into what JSON can hold: paths are text, and a number that is not finite is null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
