"""How to extend ctrlab from outside, each in under 40 lines and without a change in the package.

- `new_architecture.py`: a model and its settings. `test_new_architecture.py` trains, decomposes and compresses it.
- `test_a_method_from_outside.py`: a compression method, which is offered, predicted and carried out.
- `new_job_kind.py`: a kind of job and a worker that knows it. `test_a_job_kind_from_outside.py` runs it in a real worker's child.

The tests of the first two remove their addition from the registry; the third runs in processes of its own.
"""
