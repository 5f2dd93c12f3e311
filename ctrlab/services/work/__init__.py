"""Job handlers, one module per kind of job. They may import torch; the services that queue the jobs do not."""
