"""The store: a catalogue of artifacts, the job queue, metrics and the worker registry. Imports no torch."""

from ctrlab.storage.records import (
    ACTIVE_STATES,
    RETRYABLE_STATES,
    Annotation,
    Artifact,
    Job,
    JobGroup,
    JobState,
    MetricRow,
    NewArtifact,
    WorkerRecord,
)
from ctrlab.storage.store import Store

__all__ = [
    "ACTIVE_STATES",
    "RETRYABLE_STATES",
    "Annotation",
    "Artifact",
    "Job",
    "JobGroup",
    "JobState",
    "MetricRow",
    "NewArtifact",
    "Store",
    "WorkerRecord",
]
