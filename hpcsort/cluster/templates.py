"""Templates of job scripts: the package's own ones, and users' with RELION's or cryoSPARC's variables.

The package's own scripts are also there to be copied and changed by hand, so they hold no marks: lines of the form
``#SBATCH --name=value`` and ``name=value`` are what is filled in.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping
from pathlib import Path

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from hpcsort.errors import InputError

__all__ = ["fill_cryosparc", "fill_relion", "fill_shipped", "shipped_script"]

_HERE = Path(__file__).resolve().parent
_PLACES = _HERE / "jobs", _HERE.parents[1] / "jobs"
"""Folder of the scripts in the installed package, and in a checkout."""
_RELION = re.compile(r"XXX(\w+?)XXX")
_JINJA_FILE = "<template>"


def shipped_script(program: str) -> Path:
    """Return the script that the package brings for a program."""
    return next(place / f"{program}.slurm" for place in _PLACES if place.is_dir())


def fill_shipped(text: str, directives: Mapping[str, str], settings: Mapping[str, str]) -> str:
    """Fill in a script of the package.

    Parameters
    ----------
    text : the script.
    directives : name of an option of sbatch to its value; its line may be commented out.
    settings : name of a variable of the script to what stands behind the =, as bash reads it.

    Raises
    ------
    KeyError
        The script has no such line.
    """
    for name, value in directives.items():
        text = _replaced(text, rf"##?SBATCH --{name}=.*", f"#SBATCH --{name}={_directive(value)}", name)
    for name, value in settings.items():
        text = _replaced(text, rf"{name}=.*", f"{name}={value}", name)
    return text


def fill_relion(text: str, values: Mapping[str, str], source: Path) -> str:
    """Fill in a template with RELION's variables, XXXnameXXX.

    Parameters
    ----------
    text : of the template.
    values : name without the Xs to value.
    source : the file, for messages.

    Raises
    ------
    InputError
        A variable is not known.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            line = text.count("\n", 0, match.start()) + 1
            raise InputError(f"{source}, line {line}: XXX{name}XXX has no value; give {_cure(name)}.")
        return values[name]

    return _RELION.sub(value, text)


def fill_cryosparc(text: str, values: Mapping[str, object], source: Path) -> str:
    """Fill in a template in the language of Jinja, as cryoSPARC's cluster_script.sh.

    The template can compute with the values and nothing else: it reaches no files and runs no code.

    Parameters
    ----------
    text : of the template.
    values : name of a variable to its value.
    source : the file, for messages.

    Raises
    ------
    InputError
        A variable is not known, or the template is not well formed.
    """
    jinja = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        return jinja.from_string(text).render(values)
    except TemplateError as error:
        message = (error.message or type(error).__name__).rstrip(".")
        name = re.fullmatch(r"'(\w+)' is undefined", message)
        cure = f"give {_cure(name.group(1))}" if name else "correct the template"
        raise InputError(f"{source}, line {_jinja_line(error)}: {message}; {cure}.") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{source}, line {_jinja_line(error)}: {error}; correct the template.") from error


def _replaced(text: str, pattern: str, line: str, name: str) -> str:
    found, count = re.subn(f"^{pattern}$", lambda _: line, text, count=1, flags=re.MULTILINE)
    if not count:
        raise KeyError(name)
    return found


def _directive(value: str) -> str:
    """Write a value as sbatch reads it: it knows quotes, and takes what follows a blank and # for a comment."""
    if re.fullmatch(r"[\w@%+=:,./-]+", value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


def _cure(name: str) -> str:
    return "--queue" if name == "queue" else f"--set {name}=VALUE"


def _jinja_line(error: Exception) -> int:
    """Line of a template at which an error came up."""
    if isinstance(line := getattr(error, "lineno", None), int):
        return line
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _JINJA_FILE]
    return (lines or [1])[-1] or 1
