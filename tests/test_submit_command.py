"""The command `hpcsort submit`, with a batch system that only notes what it is given."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from sort3d_runs import BOX, simulate_small

from hpcsort.cli.submit import command
from hpcsort.errors import InputError, LaunchError, OptionError, OutputError
from hpcsort.simulation import SimulationResult


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimulationResult:
    return simulate_small(tmp_path_factory.mktemp("data"), 60)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def submit(*words: str) -> str:
    """Run `hpcsort submit WORDS` and return what it prints."""
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def batch_system(name: str, text: str) -> str:
    """Make a command that stands for sbatch and appends its words to the file `given`."""
    path = Path(name)
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> given\n{text}\n')
    path.chmod(0o755)
    return str(path.absolute())


def test_the_script_lies_beside_the_results_and_is_handed_over_as_it_is(made: SimulationResult) -> None:
    sbatch = batch_system("my sbatch", "echo Submitted batch job 4711")
    words = ("sort3d", "--instack", str(made.star), "--output-dir", "o ut/sorted", "--radius", "9")
    printed = submit(*words, "--submit-command", f"'{sbatch}' --test-only")
    script = Path("o ut/sorted.slurm").absolute()
    assert printed == f"Submitted {script} as job 4711.\n"
    assert Path("given").read_text().splitlines() == ["--test-only", str(script)]
    assert script.read_text() == submit(*words, "--dry-run")
    assert not Path("o ut/sorted").exists()


def test_a_dry_run_writes_and_submits_nothing(made: SimulationResult) -> None:
    words = ("--instack", str(made.star), "--output-dir", "new/sorted", "--scratch", "/scratch", "--dry-run")
    text = submit("sort3d", *words, "--submit-command", batch_system("sbatch", "echo 1"))
    assert text.startswith("#!/usr/bin/env bash\n")
    assert sorted(path.name for path in Path().iterdir()) == ["sbatch"]


def test_options_of_the_program_are_those_that_were_given(made: SimulationResult) -> None:
    text = submit(
        "match", "--instack", str(made.star), "--ref", "a b.mrc", "--ref", "c.mrc", "--local", "--no-ctf", "--output",
        "m.star", "--overwrite", "--nodes", "2", "--tasks-per-node", "3", "--dry-run",
    )  # fmt: skip
    assert f"\noptions=(--instack {made.star} --ref 'a b.mrc' --ref c.mrc --local --no-ctf --overwrite)\n" in text
    assert "\noutput=m.star\n" in text
    assert "\n#SBATCH --nodes=2\n#SBATCH --ntasks-per-node=3\n" in text


def test_an_array_begins_with_the_seed_that_was_given(made: SimulationResult) -> None:
    text = submit(
        "cl2d", "--instack", str(made.star), "--output-dir", "c", "--classes", "4", "--seed", "5", "--seeds", "3",
        "--overwrite", "--dry-run",
    )  # fmt: skip
    assert "\n#SBATCH --array=5-7\n" in text
    assert f"\noptions=(--instack {made.star} --classes 4)\n" in text
    assert "\nbegin=--overwrite\n" in text


def test_stacks_are_listed_for_the_copy(made: SimulationResult) -> None:
    words = ("--instack", str(made.star), "--output-dir", "c", "--classes", "4", "--scratch", "/local/disk")
    submit("cl2d", *words, "--submit-command", batch_system("sbatch", "echo 1"))
    assert Path("c.stacks").read_text() == f"{made.stack}\n"
    assert f"\nscratch=/local/disk\nstacks={Path.cwd()}/c.stacks\n" in Path("c.slurm").read_text()


def test_memory_of_sort3d_is_estimated_and_others_ask_for_4_gb(made: SimulationResult) -> None:
    def asked_MB(program: str, *words: str) -> int:
        text = submit(program, "--instack", str(made.star), "--output-dir", "o", "--dry-run", *words)
        found = re.search(r"^#SBATCH --mem-per-cpu=(\d+)M$", text, re.MULTILINE)
        assert found is not None
        return int(found.group(1))

    # libraries of 16 ranks, a fifth more, and 1 GB of the node that is left to others
    assert 16 * 0.25e9 / 2**20 < 16 * asked_MB("sort3d") < 16 * 0.4e9 / 2**20
    assert asked_MB("sort3d", "--overhead", "17") - asked_MB("sort3d") in (953, 954)
    assert asked_MB("sort3d", "--memory", "2") == 1908
    assert asked_MB("cl2d", "--classes", "4") == 3815


def test_what_exists_is_kept_and_what_was_refused_is_not_in_the_way(made: SimulationResult) -> None:
    words = ("sort3d", "--instack", str(made.star), "--output-dir", "sorted", "--submit-command")
    refusing = batch_system("refuses", "echo 'sbatch: error: invalid account' >&2; exit 1")
    with pytest.raises(LaunchError, match=re.escape(f"{refusing} refused the job: sbatch: error: invalid account")):
        submit(*words, refusing)
    accepting = batch_system("accepts", "echo Submitted batch job 12")
    submit(*words, accepting)
    Path("sorted.slurm").write_text("mine")
    with pytest.raises(OutputError, match=r"sorted\.slurm exists"):
        submit(*words, accepting)
    assert Path("sorted.slurm").read_text() == "mine"
    submit(*words, accepting, "--overwrite")
    assert "\nbegin=--overwrite\n" in Path("sorted.slurm").read_text()


def test_no_batch_system_is_one_sentence(made: SimulationResult) -> None:
    words = ("sort3d", "--instack", str(made.star), "--output-dir", "sorted", "--submit-command", "no-such-sbatch")
    with pytest.raises(LaunchError, match=r"no-such-sbatch cannot be run \(No such file or directory\): submit from"):
        submit(*words)
    assert not Path("sorted.slurm").exists()


def test_what_a_batch_system_says_without_a_number_is_told(made: SimulationResult) -> None:
    words = ("sort3d", "--instack", str(made.star), "--output-dir", "sorted", "--submit-command")
    assert submit(*words, batch_system("qsub", "echo accepted")).endswith("as job accepted.\n")
    assert submit(*words, batch_system("qsub", "echo 17.server"), "--overwrite").endswith("as job 17.server.\n")


def test_input_and_options_are_checked_before_the_job_waits(made: SimulationResult) -> None:
    with pytest.raises(InputError, match=r"none\.star"):
        submit("sort3d", "--instack", "none.star", "--output-dir", "sorted")
    with pytest.raises(OptionError, match=f"--radius 99 does not fit the box of {BOX}"):
        submit("sort3d", "--instack", str(made.star), "--output-dir", "sorted", "--radius", "99")
    with pytest.raises(OptionError, match="give --output-dir"):
        submit("sort3d", "--instack", str(made.star))
    with pytest.raises(OptionError, match="--seeds needs random numbers, and match has none"):
        submit("match", "--instack", str(made.star), "--ref", "a.mrc", "--output", "m.star", "--seeds", "2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("sort3d", "--no-such"), "No such option"),
        (("demo",), "'demo' cannot be submitted; choose one of sort3d, cl2d, match."),
        (("sort3d", "--set", "extra1"), "'extra1' is not of the form NAME=VALUE."),
        (("sort3d", "--resume"), "No such option"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: tuple[str, ...], told: str) -> None:
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2
    assert told in done.output


@pytest.mark.parametrize("program", ["sort3d", "cl2d", "match"])
def test_no_option_of_a_job_hides_one_of_a_program(program: str) -> None:
    theirs = importlib.import_module(f"hpcsort.cli.{program}").command.params
    context = click.Context(command)
    joined = command.get_command(context, program)
    assert joined is not None
    own = {name for option in joined.params if option not in theirs for name in option.opts}
    shared = own & {name for option in theirs for name in option.opts}
    assert shared == {"--overwrite", "--json"}
