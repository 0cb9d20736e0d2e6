"""Single decisions of the method, changed, to show what each is worth; and the run of a set with one of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hpcsort.sort3d import SortOptions


@dataclass(frozen=True)
class Scheme:
    """Module constants of hpcsort.sort3d ("module.name") and options that differ from the default."""

    name: str
    constants: dict[str, object] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)


DEFAULT = Scheme("default")
SCHEMES = [
    DEFAULT,
    Scheme("K-means in map space from random starts (--engine maps)", options={"engine": "maps"}),
    Scheme("same data, other starts (--independence starts)", options={"independence": "starts"}),
    Scheme("one pair of chains (--depth-order 1)", options={"depth_order": 1}),
    Scheme("finishing without leave-one-out", {"looks._SMALL_SHARE": 2.0}),
    Scheme("finishing without the scale of the classes", {"finish._SCALE_RANGE": (1.0, 1.0)}),
    Scheme("half of the finishing in map space", {"engine.FINISH_ITERATIONS": 2}),
    Scheme("band marching, to 24 px", {"problem._WIDE": 24, "finish.MARCHING": 2}),
    Scheme("wide bands (18 and 24 px)", {"problem._NARROW": 18, "problem._WIDE": 24}),
    Scheme("prior of the subspace 0.015 alone", {"survey.PRIOR_SHARES": (0.015,)}),
]
SCHEME_SETS = ["dev5", "uneven", "preferred", "poses", "junk", "rotation", "low", "single"]

_RUN = """
import importlib, json, sys
from pathlib import Path
from hpcsort.parallel import abort_on_error, get_comm
from hpcsort.sort3d import SortOptions, sort3d
star, out, constants, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
for place, value in constants.items():
    module, name = place.split(".")
    old = getattr(importlib.import_module("hpcsort.sort3d." + module), name)
    for known in [known for key, known in sys.modules.items() if key.startswith("hpcsort.sort3d.")]:
        if known.__dict__.get(name) is old and (not name.startswith("_") or known.__name__.endswith("." + module)):
            setattr(known, name, tuple(value) if isinstance(value, list) else value)
comm = get_comm()
with abort_on_error(comm):
    sort3d(SortOptions(instack=Path(star), output_dir=Path(out), overwrite=True, quiet=True, **options), comm)
"""


def check_schemes() -> None:
    """Refuse schemes that change what is no longer there: they would be the default under another name."""
    options = {known.name for known in dataclasses.fields(SortOptions)}
    for scheme in SCHEMES:
        for place in scheme.constants:
            module, name = place.split(".")
            if not hasattr(importlib.import_module("hpcsort.sort3d." + module), name):
                raise SystemExit(f"scheme {scheme.name!r}: hpcsort.sort3d.{place} is gone; correct _schemes.py")
        if unknown := set(scheme.options) - options:
            raise SystemExit(f"scheme {scheme.name!r}: no option {', '.join(sorted(unknown))}; correct _schemes.py")


def sort_set(folder: Path, out: Path, ranks: int, scheme: Scheme = DEFAULT) -> None:
    """Sort a set under mpiexec."""
    command = [str(Path(sys.executable).parent / "mpiexec"), "-n", str(ranks), sys.executable, "-c", _RUN]
    words = [str(folder / "particles.star"), str(out), json.dumps(scheme.constants), json.dumps(scheme.options)]
    # Installed code, not the source folder that this may be started in.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    subprocess.run([*command, *words], check=True, env=env)
