"""What pages take from the code when the site is built, so that they cannot disagree with it.

Read by mkdocs (see mkdocs.yml). In a page, `<!-- about: sort3d -->`, `<!-- examples: sort3d -->` and
`<!-- options: sort3d -->` become what click knows of that command, `<!-- commands -->` a list of all commands, and
`<!-- functions -->` one of the functions of hpcsort.api. Tables of benchmarks/ and the changelog become pages.
Equations become MathML, which browsers show without a script.
"""

from __future__ import annotations

import inspect
import re
from html import unescape
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

from hpcsort import api
from hpcsort.cli.main import cli

_ROOT = Path(__file__).resolve().parents[1]
_MARKER = re.compile(r"<!-- (about|examples|options): (\S+) -->")
_MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_TRAILING_BRACKET = re.compile(r"^(.*?)\s*\[([^\]]*)\]$", re.DOTALL)
_PLACES = {"path": "FILE", "file": "FILE", "integer": "N", "float": "X", "text": "TEXT"}


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the tables of benchmarks/, an index of them, and the changelog."""
    titles = []
    for path in sorted((_ROOT / "benchmarks").glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
        titles.append(f"- [{path.read_text().splitlines()[0].lstrip('# ')}]({path.name})")
    index = (
        "# What was measured\n\nEach page says by which command it is remade, when and where it was measured, and what"
        " is not good. Figures elsewhere in this documentation come from here.\n\n" + "\n".join(titles)
    )
    files.append(File.generated(config, "benchmarks/index.md", content=index))
    files.append(File.generated(config, "changelog.md", abs_src_path=str(_ROOT / "CHANGELOG.md")))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the markers, and point links to files of the repository at their pages."""
    markdown = markdown.replace("../benchmarks/", "benchmarks/").replace("../CHANGELOG.md", "changelog.md")
    markdown = markdown.replace("<!-- commands -->", _list_of_commands())
    markdown = markdown.replace("<!-- functions -->", _list_of_functions())
    return _MARKER.sub(lambda found: _WRITERS[found[1]](_command(found[2])), markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Turn equations into MathML."""
    displays = {"div": "block", "span": "inline"}
    return _MATH.sub(lambda found: convert(unescape(found[2]), display=displays[found[1]]), html)


def _command(name: str) -> click.Command:
    if name == "hpcsort":
        return cli
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _list_of_commands() -> str:
    context = click.Context(cli)
    lines = []
    for name in cli.list_commands(context):
        lines.append(f"| [`hpcsort {name}`]({name}.md) | {_command(name).get_short_help_str(200)} |")
    return "\n".join(["| command | job |", "|---|---|", *lines])


def _list_of_functions() -> str:
    functions = {name: getattr(api, name) for name in api.__all__ if inspect.isfunction(getattr(api, name))}
    lines = [f"| `{name}` | {(inspect.getdoc(one) or '').splitlines()[0]} |" for name, one in functions.items()]
    return "\n".join(["| function | what it does |", "|---|---|", *lines])


def _about(command: click.Command) -> str:
    """Return the text of the help; what click shall not wrap keeps its lines here too."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{paragraph[1:].strip()}\n```" if paragraph.startswith("\b") else paragraph
        for paragraph in paragraphs
    )


def _examples(command: click.Command) -> str:
    text = inspect.cleandoc((command.epilog or "").replace("\b", "").replace("Examples:", ""))
    return f"```bash\n{inspect.cleandoc(text)}\n```"


def _options(command: click.Command) -> str:
    return "\n".join(["| option | value | default | meaning |", "|---|---|---|---|", *map(_row, _parameters(command))])


def _parameters(command: click.Command) -> list[click.Parameter]:
    """Parameters of a command; of `submit`, those of the job, without those of the programs."""
    if not isinstance(command, click.Group) or command is cli:
        return command.params
    context = click.Context(command)
    program = command.list_commands(context)[0]
    both = command.get_command(context, program)
    assert both is not None
    return [parameter for parameter in both.params if parameter not in _command(program).params]


def _row(parameter: click.Parameter) -> str:
    told = parameter.to_info_dict()
    if isinstance(parameter, click.Argument):
        name = (parameter.metavar or told["name"].upper()).strip("[]")
        cells = [f"`{name}`", "", "required" if parameter.required else "", "see above"]
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        meaning, default = _meaning_and_default(told)
        cells = [names, _value(told, parameter.metavar), default, meaning]
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _meaning_and_default(told: dict[str, Any]) -> tuple[str, str]:
    """Split the help; it ends with the default in brackets where that is no plain value."""
    meaning = told["help"] or ""
    if found := _TRAILING_BRACKET.match(meaning):
        return found[1], found[2]
    if told["required"]:
        return meaning, "required"
    if told["secondary_opts"]:
        return meaning, f"`{told['opts' if told['default'] else 'secondary_opts'][0]}`"
    if told["is_flag"] or told["default"] in (None, "", []):
        return meaning, ""
    return meaning, f"`{told['default']}`"


def _value(told: dict[str, Any], metavar: str | None) -> str:
    kind = told["type"]
    if told["is_flag"]:
        return ""
    if "choices" in kind:
        return ", ".join(f"`{choice}`" for choice in kind["choices"])
    return f"`{metavar or _PLACES.get(kind['name'], kind['name'].upper())}`"


_WRITERS = {"about": _about, "examples": _examples, "options": _options}
