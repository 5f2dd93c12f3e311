"""What the worker does: one module per kind of job. These may import torch; the services that queue them do not."""
