"""The documentation's example runs as it stands."""

from pathlib import Path


def test_the_example_of_the_documentation_runs():
    text = (Path(__file__).parents[2] / "docs" / "ANY_MODULE.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert names["result"].plan.as_dict() == {"0": 4, "1": 8} and names["result"].skipped == {"3": "one output unit"}
