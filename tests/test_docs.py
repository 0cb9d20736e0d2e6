"""The documentation builds without warnings and without a network, and what it says can be typed."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import click
import pandas as pd
import pytest
import starfile
from mpi_helpers import find_mpiexec, run_alone

from hpcsort.cli.main import cli

_ROOT = Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
_PAGES = [_ROOT / "README.md", *sorted(_DOCS.rglob("*.md"))]
_COMMANDS = cli.list_commands(click.Context(cli))
_SHELL_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_CALL = re.compile(r"(?:^|[ /])hpcsort +([a-z][a-z0-9-]*)\b([^|>&;]*)")
_RUN = "import subprocess, sys; sys.exit(subprocess.call(['bash', '-euo', 'pipefail', sys.argv[1]]))"


def _command(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def _options(command: click.Command) -> set[str]:
    options = [param for param in command.params if isinstance(param, click.Option)]
    return {word for option in options for word in (*option.opts, *option.secondary_opts)}


def _parts(command: click.Command) -> list[click.Command]:
    """Commands of a group."""
    if not isinstance(command, click.Group):
        return []
    context = click.Context(command)
    found = [command.get_command(context, name) for name in command.list_commands(context)]
    return [part for part in found if part is not None]


def _calls(text: str) -> list[tuple[str, list[str]]]:
    """Commands of hpcsort in lines of a shell, with their words; comments and what follows a pipe are left out."""
    lines = text.replace("\\\n", " ").splitlines()
    found = [match for line in lines for match in _CALL.finditer(line.split(" #")[0])]
    return [(name, shlex.split(words.split("  (")[0])) for name, words in (match.groups() for match in found)]


def _shell_calls() -> list[tuple[str, str, list[str]]]:
    return [
        (page.relative_to(_ROOT).as_posix(), *call)
        for page in _PAGES
        for block in _SHELL_BLOCK.findall(page.read_text())
        for call in _calls(block)
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; any warning ends the build."""
    pytest.importorskip("material", reason="the extra [docs] is not installed")
    pytest.importorskip("latex2mathml", reason="the extra [docs] is not installed")
    out = tmp_path_factory.mktemp("site")
    done = run_alone("-m", "mkdocs", "build", "--strict", "--site-dir", str(out), cwd=_ROOT, timeout_s=200)
    assert done.returncode == 0, done.stderr
    return out


class _Page(HTMLParser):
    """Text of the elements of inline code, and what a browser would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.code: set[str] = set()
        self.loaded: list[str] = []
        self._inside = False
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "code"
        place = "href" if tag == "link" else "src"
        if tag in ("link", "script", "img", "iframe", "source"):
            self.loaded += [value for name, value in attrs if name == place and value]

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.code.add(data)


@pytest.mark.parametrize("name", _COMMANDS)
def test_the_page_of_a_command_names_every_option(site: Path, name: str) -> None:
    page = _Page(site / "commands" / f"{name}.html")
    names = _options(_command(name))
    for program in _parts(_command(name)):
        # options of a program that is submitted are on its own page
        names |= _options(program) - _options(_command(str(program.name)))
    assert names <= page.code


def test_the_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(_COMMANDS)
    loaded = {place for page in pages for place in _Page(page).loaded}
    assert not [place for place in loaded if re.match(r"(https?:)?//", place)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text())


def test_equations_are_mathml(site: Path) -> None:
    html = (site / "method.html").read_text()
    assert html.count("<math") > 10
    assert "arithmatex" not in html
    assert not re.findall(r"\\[a-z]+", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))


@pytest.mark.parametrize(("page", "name", "words"), _shell_calls())
def test_commands_of_the_pages_can_be_typed(page: str, name: str, words: list[str]) -> None:
    assert name in _COMMANDS, page
    _parse(name, words)


@pytest.mark.parametrize("name", _COMMANDS)
def test_examples_of_the_help_can_be_typed(name: str) -> None:
    calls = _calls(_command(name).epilog or "")
    assert calls
    assert all(called == name for called, _ in calls)
    for _, words in calls:
        _parse(name, words)


def _parse(name: str, words: list[str]) -> None:
    """Let click read the words; nothing is run."""
    if {"-h", "--help", "..."} & set(words):
        return
    command, parent = _command(name), click.Context(cli, **cli.context_settings)
    if isinstance(command, click.Group):
        parent = command.make_context(name, words[:1], parent=parent)
        parts = {part.name: part for part in _parts(command)}
        name, words, command = words[0], words[1:], parts[words[0]]
    command.make_context(name, words, parent=parent)


def test_pictures_are_there_and_small() -> None:
    named = {name for page in _PAGES for name in re.findall(r"\]\((?:\.\./)*(pictures/[^)]+)\)", page.read_text())}
    assert named
    sizes = [(_DOCS / name).stat().st_size for name in named]
    assert max(sizes) < 300e3
    assert sum(sizes) < 2e6


@pytest.mark.mpi
@pytest.mark.slow
def test_the_tutorial_runs_word_for_word(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    start = "from hpcsort.cli.main import main; main()"
    for program, command in (("hpcsort", f"{sys.executable} -c '{start}'"), ("python", sys.executable)):
        script = programs / program
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
    blocks = runpy.run_path(str(_DOCS / "_tutorial.py"))["tutorial_blocks"]()
    steps = [text if language == "bash" else f"python - <<'END'\n{text}END\n" for language, text in blocks]
    (tmp_path / "tutorial.sh").write_text("".join(steps))
    path = os.pathsep.join([str(programs), str(Path(find_mpiexec()).parent), os.environ["PATH"]])
    done = run_alone("-c", _RUN, "tutorial.sh", cwd=tmp_path, env={"PATH": path}, timeout_s=280)
    assert done.returncode == 0, done.stderr
    # what the page says of the result
    truth = pd.read_csv(tmp_path / "data" / "truth.csv")["state"]
    groups = starfile.read(tmp_path / "sorted" / "particles.star")["particles"]["rlnClassNumber"]
    table = pd.crosstab(groups[groups > 0], truth)
    assert table.shape == (3, 3)
    assert table.max().sum() > 0.95 * len(truth)
    assert (tmp_path / "maps" / "group1.mrc").exists()
