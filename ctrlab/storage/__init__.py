"""What is remembered: a catalogue of artifacts, the jobs and their queue, metrics, and the workers. Loads without torch."""

from ctrlab.storage.records import ACTIVE_STATES, RETRYABLE_STATES, Artifact, Job, JobState, MetricRow, WorkerRecord
from ctrlab.storage.store import Store

__all__ = ["ACTIVE_STATES", "RETRYABLE_STATES", "Artifact", "Job", "JobState", "MetricRow", "Store", "WorkerRecord"]
