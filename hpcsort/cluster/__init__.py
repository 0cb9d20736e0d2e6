"""Jobs on a cluster: scripts filled in from templates, and handed to the batch system."""

from hpcsort.cluster.options import SubmitOptions
from hpcsort.cluster.scripts import JobScript, Task, job_scripts
from hpcsort.cluster.submit import submit_job
from hpcsort.cluster.templates import fill_cryosparc, fill_relion, fill_shipped, shipped_script

__all__ = [
    "JobScript",
    "SubmitOptions",
    "Task",
    "fill_cryosparc",
    "fill_relion",
    "fill_shipped",
    "job_scripts",
    "shipped_script",
    "submit_job",
]
