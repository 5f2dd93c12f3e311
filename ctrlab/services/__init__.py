"""The verbs that a page, the worker or the command line may call, one module per step of the flow. Loads without torch."""
