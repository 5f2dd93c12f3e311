"""How to extend ctrlab from outside, each in under 40 lines that nothing in the package has to know of.

- `new_architecture.py`: a model and its settings. `test_new_architecture.py` trains, decomposes and compresses it.
- `new_job_kind.py`: a kind of job and a worker that knows it. `test_a_job_kind_from_outside.py` runs it in a real worker's child.

The examples are imported in processes of their own, so that the registries of the other tests stay as the package makes them.
"""
