"""Templates of job scripts: the own ones, RELION's variables, cryoSPARC's; what is wrong is named with its line."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcsort.cluster import SubmitOptions, Task, fill_cryosparc, fill_relion, fill_shipped, job_scripts, shipped_script
from hpcsort.errors import InputError, OptionError

_SOURCE = Path("mine.sh")
_ODD = 'it\'s a "name" with $HOME `date` \\ # 100% ü'

_RELION = """\
#!/bin/tcsh
#$ -N XXXnameXXX
#$ -pe XXXqueueXXX XXXnodesXXX
#$ -l dedicated=XXXdedicatedXXX
#$ -e XXXerrfileXXX
#$ -o XXXoutfileXXX
# XXXmpinodesXXX ranks of XXXthreadsXXX thread: XXXcoresXXX cores, XXXextra1XXX
mpiexec -n XXXmpinodesXXX XXXcommandXXX
"""
_CRYOSPARC = """\
#!/usr/bin/env bash
#SBATCH --job-name cryosparc_{{ project_uid }}_{{ job_uid }}
#SBATCH -n {{ num_cpu }}
{% if num_gpu > 0 %}#SBATCH --gres=gpu:{{ num_gpu }}
{% endif %}#SBATCH --mem={{ (ram_gb*1000)|int }}MB
#SBATCH --output={{ job_log_path_abs }}
{{ run_cmd }}
"""


def task(folder: Path, *words: str, output: str = "sorted") -> Task:
    return Task("sort3d", "--output-dir", folder / output, words, can_resume=True, first_seed=0)


def template(folder: Path, text: str) -> Path:
    path = folder / "mine.csh"
    path.write_text(text)
    return path


def settings_of(script: str, *names: str) -> list[list[str]]:
    """Let bash read the settings of a script, up to the first thing it does."""
    head = script.partition("PATH=$environment")[0]
    shown = "; ".join(f'printf "%s\\0" "${{{name}[@]}}"; printf "\\0"' for name in names)
    told = subprocess.run(["bash", "-c", f"{head}\n{shown}"], capture_output=True, check=True).stdout.decode()
    return [part.split("\0") for part in told.split("\0\0")[:-1]]


@pytest.mark.parametrize("program", ["sort3d", "cl2d", "match"])
def test_the_scripts_that_people_copy_are_sound(program: str) -> None:
    path = shipped_script(program)
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)
    text = path.read_text()
    assert "set -euo pipefail" in text
    resumes = program != "match"
    assert ("--requeue " in text, "--signal=B:USR1@" in text, "scontrol requeue" in text) == (resumes,) * 3
    assert ("#SBATCH --no-requeue" in text) != resumes


def test_scripts_of_sort3d_and_cl2d_differ_in_names_alone() -> None:
    sort3d, cl2d = (shipped_script(program).read_text().splitlines() for program in ("sort3d", "cl2d"))
    assert len(sort3d) == len(cl2d)
    for a, b in zip(sort3d, cl2d, strict=True):
        if a != b:
            names = r"sort3d|cl2d|sorted|classes2d|five (sorts|runs)| *# .*"
            assert re.sub(names, "", a) == re.sub(names, "", b)


def test_lines_are_filled_in_and_all_others_kept() -> None:
    text = "#SBATCH --nodes=1   # CHANGE\n##SBATCH --array=0-4\n##SBATCH --account=a\noutput=a\n  output=b\n"
    filled = fill_shipped(text, {"nodes": "3", "array": "0-1"}, {"output": "'c d'"})
    assert filled == "#SBATCH --nodes=3\n#SBATCH --array=0-1\n##SBATCH --account=a\noutput='c d'\n  output=b\n"
    with pytest.raises(KeyError, match="gpus"):
        fill_shipped(text, {"gpus": "1"}, {})


@pytest.mark.parametrize("program", ["sort3d", "cl2d", "match"])
def test_every_script_takes_every_option(tmp_path: Path, program: str) -> None:
    resumes = program != "match"
    run = Task(program, "--output", tmp_path / "out", ("--sym", "c1"), resumes, 0 if resumes else None)
    options = SubmitOptions(
        nodes=2, tasks_per_node=3, time="1-00", memory_GB=2.0, queue="long", account="me", job_name="name",
        seeds=2 if resumes else None, scratch="/s", environment="/e", launcher="mpiexec", overwrite=True,
    )  # fmt: skip
    (script,) = job_scripts(run, options)
    subprocess.run(["bash", "-n"], input=script.text.encode(), check=True)
    given = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)", script.text, re.MULTILINE))
    expected = {
        "nodes": "2", "ntasks-per-node": "3", "time": "1-00", "mem-per-cpu": "1908M", "partition": "long",
        "account": "me", "job-name": "name", "chdir": str(Path.cwd()),
    }  # fmt: skip
    assert expected.items() <= given.items()
    assert ("\nbegin=--overwrite\n" in script.text) == resumes
    assert ("options=(--sym c1 --overwrite)" in script.text) != resumes


def test_odd_names_come_through_bash_unchanged(tmp_path: Path) -> None:
    odd = task(tmp_path, "--instack", _ODD, "--sym", "c1", output=_ODD)
    options = SubmitOptions(scratch=_ODD, environment=f"/env/{_ODD}", launcher="mpiexec -n 4")
    (script,) = job_scripts(odd, options)
    names = ("options", "output", "scratch", "environment", "launcher", "stacks", "begin")
    assert settings_of(script.text, *names) == [
        ["--instack", _ODD, "--sym", "c1"],
        [str(tmp_path / _ODD)],
        [_ODD],
        [f"/env/{_ODD}"],
        ["mpiexec", "-n", "4"],
        [str(tmp_path / f"{_ODD}.stacks")],
        ["--resume"],
    ]


def test_names_that_are_not_one_line_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="not one line"):
        job_scripts(task(tmp_path, "--instack", "a\n#SBATCH --nodes=9"), SubmitOptions())
    with pytest.raises(OptionError, match="--job-name"):
        SubmitOptions(job_name="a\nb")


def test_seeds_are_an_array_of_the_own_script_and_scripts_of_a_template(tmp_path: Path) -> None:
    (script,) = job_scripts(task(tmp_path), SubmitOptions(seeds=3))
    assert "\n#SBATCH --array=0-2\n" in script.text
    assert f"\n#SBATCH --output={tmp_path}/sorted_%A_%a.out\n" in script.text
    mine = template(tmp_path, "XXXcommandXXX\n")
    scripts = job_scripts(task(tmp_path), SubmitOptions(seeds=2, template=mine, environment="/e"))
    assert [script.path for script in scripts] == [tmp_path / "sorted" / f"seed_{seed}.csh" for seed in (0, 1)]
    assert scripts[1].text == (
        f"/e/bin/hpcsort sort3d --output-dir {tmp_path}/sorted/seed_1 --resume --seed 1\n"
    )  # fmt: skip


def test_relion_variables(tmp_path: Path) -> None:
    options = SubmitOptions(
        nodes=3, tasks_per_node=4, queue="mpi", environment="/e", template=template(tmp_path, _RELION),
        variables={"extra1": "24 hours"},
    )  # fmt: skip
    (script,) = job_scripts(task(tmp_path, "--instack", "a b.star"), options)
    assert script.path == tmp_path / "sorted.csh"
    assert script.text.splitlines()[1:] == [
        "#$ -N sorted",
        "#$ -pe mpi 3",
        "#$ -l dedicated=4",
        f"#$ -e {tmp_path}/sorted.err",
        f"#$ -o {tmp_path}/sorted.out",
        "# 12 ranks of 1 thread: 12 cores, 24 hours",
        f"mpiexec -n 12 /e/bin/hpcsort sort3d --output-dir {tmp_path}/sorted --resume --instack 'a b.star'",
    ]


def test_cryosparc_variables(tmp_path: Path) -> None:
    options = SubmitOptions(
        nodes=1, tasks_per_node=8, memory_GB=2.5, environment="/e", job_name="J7", overwrite=True,
        template=template(tmp_path, _CRYOSPARC),
    )  # fmt: skip
    (script,) = job_scripts(task(tmp_path, "--instack", "it's.star"), options)
    lines = script.text.splitlines()
    assert lines[1] == f"#SBATCH --job-name cryosparc_{Path.cwd().name}_J7"
    assert lines[2:5] == ["#SBATCH -n 8", "#SBATCH --mem=20000MB", f"#SBATCH --output={tmp_path}/sorted.out"]
    assert shlex.split(lines[5]) == [
        "srun", "--mpi=pmix", "/e/bin/hpcsort", "sort3d", "--output-dir", str(tmp_path / "sorted"), "--overwrite",
        "--instack", "it's.star",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\n\nXXXqueueXXX XXXcommandXXX", "line 3: XXXqueueXXX has no value; give --queue"),
        ("XXXcommandXXX XXXextra2XXX", "line 1: XXXextra2XXX has no value; give --set extra2=VALUE"),
    ],
)
def test_an_unknown_relion_variable_is_named_with_its_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"mine.sh, {told}")):
        fill_relion(text, {"command": "c"}, _SOURCE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\n{{ run_cmd }}\n{{ gpu_type }}", "line 3: 'gpu_type' is undefined; give --set gpu_type=VALUE."),
        ("a\n{% if x %}{{ run_cmd }}", "line 2: "),
        ("{{ run_cmd }}\n{% for n in unknown %}{% endfor %}", "line 2: 'unknown' is undefined"),
        ("{{ run_cmd }}\n\n{{ 1 / 0 }}", "line 3: division by zero; correct the template."),
        ("{{ run_cmd }}\n{{ run_cmd.__class__.__mro__ }}", "line 2: access to attribute '__class__'"),
    ],
)
def test_an_unsound_cryosparc_template_is_named_with_its_line(text: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"mine.sh, {told}")):
        fill_cryosparc(text, {"run_cmd": "c"}, _SOURCE)


def test_a_template_without_a_command_or_absent_is_refused(tmp_path: Path) -> None:
    plain = template(tmp_path, "#!/bin/sh\nhpcsort sort3d\n")
    with pytest.raises(InputError, match=r"neither XXXcommandXXX.*nor \{\{ run_cmd \}\}"):
        job_scripts(task(tmp_path), SubmitOptions(template=plain))
    with pytest.raises(InputError, match=r"none\.sh cannot be read"):
        job_scripts(task(tmp_path), SubmitOptions(template=tmp_path / "none.sh"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"nodes": 0}, "--nodes is 0"),
        ({"tasks_per_node": -1}, "--tasks-per-node is -1"),
        ({"memory_GB": 0.0}, "--memory is 0"),
        ({"seeds": 0}, "--seeds is 0"),
        ({"queue": ""}, "--queue ''"),
        ({"variables": {"extra1": "1"}}, "--set extra1 belongs to a template"),
        ({"template": Path("t"), "scratch": "/s"}, "--scratch belongs to the scripts of hpcsort"),
        ({"launcher": "srun 'x"}, "--launcher srun 'x"),
        ({"submit_command": "'"}, "--submit-command '"),
    ],
)
def test_options_that_cannot_be_used_are_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        SubmitOptions(**values)  # type: ignore[arg-type]
