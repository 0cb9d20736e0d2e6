"""What lets a run survive its end: checkpoints, the journal of its steps, the lock of its folder."""

from hpcsort.checkpoints.codec import pack, settled, unpack
from hpcsort.checkpoints.files import previous_of, read_checkpoint, write_checkpoint
from hpcsort.checkpoints.folder import CHECKPOINTS, LOG, RunFolder
from hpcsort.checkpoints.identity import hash_files, options_as_json, options_from_json
from hpcsort.checkpoints.job import Job, JobRecord, is_finished, open_job, options_to_resume, read_record, resume_run
from hpcsort.checkpoints.journal import Journal, no_journal
from hpcsort.checkpoints.lock import FolderLock

__all__ = [
    "CHECKPOINTS",
    "LOG",
    "FolderLock",
    "Job",
    "JobRecord",
    "Journal",
    "RunFolder",
    "hash_files",
    "is_finished",
    "no_journal",
    "open_job",
    "options_as_json",
    "options_from_json",
    "options_to_resume",
    "pack",
    "previous_of",
    "read_checkpoint",
    "read_record",
    "resume_run",
    "settled",
    "unpack",
    "write_checkpoint",
]
