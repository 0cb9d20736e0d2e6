"""Errors that a user can act on: one sentence with the value, the place and the cure.

Every floor of the package may raise these; the command line prints them without a traceback.
"""


class HpcsortError(Exception):
    """Base of all errors that are shown to the user as one sentence.

    ``is_shared`` is true of an error that every rank raises: then rank 0 speaks, and all leave in order.
    """

    exit_code = 1
    is_shared = False


class InputError(HpcsortError):
    """A file or table that was given cannot be used; names file, row, column and cure."""

    exit_code = 3


class OptionError(HpcsortError):
    """An option's value cannot be used; names option, value, range and cure."""

    exit_code = 2


class OutputError(HpcsortError):
    """A result cannot be written, or would overwrite what exists."""

    exit_code = 4


class LaunchError(HpcsortError):
    """The MPI launcher and the MPI library of this process do not belong together."""

    exit_code = 5


class StoppedError(HpcsortError):
    """The run was asked to stop, and has kept what it knows; another can go on from there."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h
    is_shared = True


def require(option: str, value: object, fulfilled: bool, cure: str) -> None:
    """Refuse an option's value: "OPTION is VALUE; give CURE".

    Raises
    ------
    OptionError
        If ``fulfilled`` is false.
    """
    if not fulfilled:
        raise OptionError(f"{option} is {value}; give {cure}")
