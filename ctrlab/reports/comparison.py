"""The measurements that a comparison table has."""

#: Batch sizes at which models are timed.
LATENCY_BATCH_SIZES = (1, 256, 4096)
#: The batch size at which speeds are compared in words.
SPEED_BATCH = LATENCY_BATCH_SIZES[-1]
#: What models are timed in.
RUNTIMES = ("torch", "onnx")
#: Columns of the ratios of throughput in PyTorch to the original's; with `_low`, `_high` and `_reason` before the batch size.
SPEED_RATIO = "torch_speedup"
