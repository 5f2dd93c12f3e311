"""The documentation's example runs as it stands."""

from pathlib import Path

import torch


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "ANY_MODULE.md").read_text(encoding="utf-8")
    code = [block.split("```")[0] for block in text.split("## FuxiCTR")[0].split("```python\n")[1:]]
    names: dict = {}
    exec("\n".join(code), names)
    assert names["result"].plan.as_dict() == {"0": 4, "1": 8} and names["result"].skipped == {"3": "one output unit"}
    torch.testing.assert_close(names["small"](names["batches"][0]), names["result"].model(names["batches"][0]))
