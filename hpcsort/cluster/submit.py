"""Writing a job script and handing it to the batch system."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

from hpcsort.cluster.scripts import JobScript
from hpcsort.errors import LaunchError, OutputError
from hpcsort.io import write_text_atomically

__all__ = ["submit_job"]


def submit_job(script: JobScript, command: str, *, overwrite: bool) -> str:
    """Write a script beside the results, hand it to the batch system, and return the job's number.

    A script that was refused is removed again, so that the next attempt finds nothing in its way.

    Parameters
    ----------
    script : filled in.
    command : words before the name of the script, such as sbatch; no shell reads them.
    overwrite : replace an earlier script.

    Raises
    ------
    OutputError
        The script exists, or cannot be written.
    LaunchError
        The command is not there, or refuses the job; the words are its own.
    """
    _write(script, overwrite)
    words = shlex.split(command)
    try:
        return _handed_in([*words, str(script.path)])
    except LaunchError:
        script.path.unlink()
        raise


def _write(script: JobScript, overwrite: bool) -> None:
    if not overwrite and os.path.lexists(script.path):
        raise OutputError(
            f"{script.path} exists: submit it again as it is, name another output, or replace it and the results with "
            "--overwrite."
        )
    try:
        script.path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {script.path.parent}: {error.strerror}; choose another output.") from error
    if script.stacks is not None:
        write_text_atomically(script.stacks, script.stack_list, overwrite=True)
    write_text_atomically(script.path, script.text, overwrite=overwrite)


def _handed_in(words: list[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise LaunchError(
            f"{words[0]} cannot be run ({error.strerror}): submit from a login node of the cluster, or name another "
            "command with --submit-command."
        ) from error
    if done.returncode != 0:
        told = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise LaunchError(f"{words[0]} refused the job: {told}")
    number = re.search(r"\d[\w.\[\]]*", done.stdout)
    return number.group() if number else done.stdout.strip()
