"""A run in its folder: what it is a run of, its lock, its checkpoints, and going on with it later."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from hpcsort import __version__
from hpcsort.checkpoints.files import previous_of, read_checkpoint, write_checkpoint
from hpcsort.checkpoints.folder import CHECKPOINTS, LOG
from hpcsort.checkpoints.identity import options_as_json, options_from_json
from hpcsort.checkpoints.journal import Journal
from hpcsort.checkpoints.lock import FolderLock
from hpcsort.errors import InputError, OptionError
from hpcsort.io import write_text_atomically
from hpcsort.kernels import backend, instruction_set
from hpcsort.parallel import Communicator, stop_signals, together, watch_ranks

__all__ = ["Job", "JobRecord", "is_finished", "open_job", "options_to_resume", "read_record", "resume_run"]

Options = TypeVar("Options")
Result = TypeVar("Result")

_RECORD, _CONTENT, _LOCK, _ENDED = "job.json", "steps.checkpoint", "lock", "ended"


@dataclass(frozen=True)
class JobRecord:
    """What a run is a run of; two runs with the same record give the same results.

    Attributes
    ----------
    program : its command.
    version : of this package.
    options : those on which results depend, as JSON.
    others : those on which they do not.
    inputs : file -> its size and hashes.
    kernels : instruction set of the compiled kernels; another one may change last bits.
    finished : the run has come to its end.
    """

    program: str
    version: str
    options: dict[str, Any]
    others: dict[str, Any]
    inputs: dict[str, dict[str, Any]]
    kernels: str
    finished: bool = False

    @classmethod
    def of(cls, program: str, options: Any, without_effect: Collection[str], inputs: dict[str, Any]) -> Self:
        """Record of a run of this version with these kernels.

        Parameters
        ----------
        program : its command.
        options : dataclass.
        without_effect : names of those on which results do not depend.
        inputs : from `hash_files`.
        """
        values = options_as_json(options)
        return cls(
            program,
            __version__,
            {name: value for name, value in values.items() if name not in without_effect},
            {name: value for name, value in values.items() if name in without_effect},
            inputs,
            f"{backend()} {instruction_set()}",
        )

    def check(self, now: JobRecord) -> None:
        """Refuse to go on with this run as something else.

        Raises
        ------
        InputError, OptionError
            Naming what has changed.
        """
        for name in ("program", "version"):
            was, is_now = getattr(self, name), getattr(now, name)
            if was != is_now:
                raise InputError(
                    f"the run was begun with {name} {was} and cannot go on with {is_now}; use that one, or start anew "
                    "with --overwrite."
                )
        for name in sorted(self.options.keys() | now.options.keys()):
            was, is_now = self.options.get(name), now.options.get(name)
            if was != is_now:
                raise OptionError(
                    f"--{name.replace('_', '-')} was {was} when the run began and is {is_now} now; give {was} again, "
                    "or start anew with --overwrite."
                )
        self.check_inputs(now.inputs, "since the run began")

    def check_inputs(self, inputs: dict[str, dict[str, Any]], when: str) -> None:
        """Refuse inputs that are not those of this run.

        Raises
        ------
        InputError
            Naming the file.
        """
        for name in sorted(self.inputs.keys() | inputs.keys()):
            if self.inputs.get(name) != inputs.get(name):
                raise InputError(
                    f"{name} has changed {when}; put the old file back and go on with hpcsort resume, or start anew "
                    "with --overwrite."
                )


@dataclass
class Job:
    """A run that works in its folder.

    Attributes
    ----------
    comm : its communicator, watched.
    journal : of its steps.
    record : what it is; on rank 0, else None.
    notes : sentences for the log.
    stop : names the signal by which this rank is asked to end, or "".
    next_step : what a user does then, a clause.
    """

    comm: Communicator
    journal: Journal
    record: JobRecord | None
    notes: list[str]
    stop: Callable[[], str]
    next_step: str
    _place: Path

    def begin(self) -> None:
        """Write what the run is, so that another can go on with it. Rank 0."""
        assert self.record is not None
        _write_record(self._place, self.record)

    def finish(self) -> None:
        """Note that the run has come to its end, and drop its checkpoints. Rank 0."""
        assert self.record is not None
        _write_record(self._place, dataclasses.replace(self.record, finished=True))
        for path in (self._place / _CONTENT, previous_of(self._place / _CONTENT)):
            path.unlink(missing_ok=True)


@contextmanager
def open_job(
    comm: Communicator,
    folder: Path,
    make_record: Callable[[], JobRecord],
    *,
    resume: bool,
    checkpoint_minutes: float,
    watchdog_minutes: float,
) -> Iterator[Job]:
    """Work in a folder: alone, watched, with checkpoints, and able to stop when asked. Collective.

    Parameters
    ----------
    comm : of the run.
    folder : of the run; it exists.
    make_record : says on rank 0 what the run is.
    resume : go on with what the folder holds; else its checkpoints are left alone until `Job.begin`.
    checkpoint_minutes : time between checkpoints; 0 writes one after every step.
    watchdog_minutes : see `watch_ranks`.

    Raises
    ------
    OutputError
        Another run works in the folder.
    InputError, OptionError
        The folder holds the run of something else, or no checkpoint in it can be read.
    """
    place = folder / CHECKPOINTS
    next_step = f"go on with: hpcsort resume {folder}"
    record, lock, content = None, None, None
    notes: list[str] = []
    try:
        with together(comm):
            if comm.is_root:
                place.mkdir(exist_ok=True)
                lock = FolderLock(place / _LOCK)
                (place / _ENDED).unlink(missing_ok=True)
                record = make_record()
                if resume:
                    content, notes = _load(place, record)
        with (
            stop_signals() as stop,
            watch_ranks(
                comm,
                minutes=watchdog_minutes,
                log=folder / LOG,
                ended=place / _ENDED,
                lock=place / _LOCK,
                next_step=next_step,
            ) as watched,
        ):
            journal = Journal(
                watched,
                lambda steps: write_checkpoint(place / _CONTENT, (record, steps)),
                content,
                interval_s=60.0 * checkpoint_minutes,
                stop=stop,
                next_step=next_step,
            )
            yield Job(watched, journal, record, notes, stop, next_step, place)
    finally:
        if lock is not None:
            lock.release()
            with suppress(OSError):
                # Nothing else is in it where the run was refused before it began.
                place.rmdir()


def read_record(folder: Path) -> JobRecord | None:
    """Return what a folder's run is a run of; None where there is none.

    Raises
    ------
    InputError
        The record cannot be read.
    """
    path = folder / CHECKPOINTS / _RECORD
    try:
        record = JobRecord(**json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(part, dict) for part in (record.options, record.others, record.inputs)):
            raise ValueError("options or inputs are no table")
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}); start the run anew with --overwrite.") from error


def is_finished(folder: Path) -> bool:
    """Tell whether a folder holds a run that has come to its end."""
    record = read_record(folder)
    return record is not None and record.finished


def options_to_resume(
    folder: Path, program: str, kind: type[Options], folder_option: str = "output_dir", **changes: Any
) -> Options:
    """Return the options with which the run in a folder goes on.

    Parameters
    ----------
    folder : of the run.
    program : whose it is.
    kind : dataclass of its options; it has ``resume`` and ``overwrite``.
    folder_option : its option that names the folder.
    changes : options on which results do not depend; None leaves one as it was.

    Raises
    ------
    InputError
        There is no such run in the folder, or its record is damaged.
    """
    record = read_record(folder)
    if record is None or record.program != program:
        raise InputError(f"{folder} holds no {program} that could go on; name the output folder of one.")
    values = record.options | record.others | {name: value for name, value in changes.items() if value is not None}
    return options_from_json(kind, values | {folder_option: folder, "resume": True, "overwrite": False})


def resume_run(
    folder: Path,
    comm: Communicator,
    program: str,
    kind: type[Options],
    run: Callable[[Options, Communicator], Result],
    folder_option: str = "output_dir",
    **changes: Any,
) -> Result | None:
    """Go on with the run in a folder; None if it has come to its end. Collective.

    Parameters
    ----------
    folder, program, kind, folder_option, changes : see `options_to_resume`.
    comm : all ranks, as many as there are now.
    run : the program.

    Raises
    ------
    HpcsortError
        There is no such run in the folder, or what it is a run of has changed.
    """
    with together(comm):
        options = options_to_resume(folder, program, kind, folder_option, **changes)
        finished = is_finished(folder)
    return None if finished else run(options, comm)


def _write_record(place: Path, record: JobRecord) -> None:
    text = json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False)
    write_text_atomically(place / _RECORD, text + "\n", overwrite=True)


def _load(place: Path, record: JobRecord) -> tuple[Any, list[str]]:
    """Return the journal's content and sentences about it."""
    found = read_checkpoint(place / _CONTENT)
    if found is None:
        return None, ["There is no checkpoint yet; the run begins anew."]
    (known, steps), note = found
    known.check(record)
    notes = [note] if note else []
    notes.append(f"Going on from a checkpoint of {len(steps[0])} steps.")
    if known.kernels != record.kernels:
        notes.append(
            f"The run began with kernels for {known.kernels} and goes on with those for {record.kernels}: last bits of "
            "its results may differ from those of a run on one kind of machine."
        )
    return steps, notes
