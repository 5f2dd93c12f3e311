"""The README inside a bundle."""

from collections.abc import Mapping
from typing import Any

_TEXT = """\
# {name}

A click-through-rate model{form} that reads raw rows, written by ctrlab {ctrlab}, version {version}.{auc}

`model.onnx` needs ONNX Runtime alone. Its inputs are the columns by their names, its output `{output}` is the
probability of a click:

```python
import json
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
kinds = {{value.name: value.type for value in session.get_inputs()}}
rows = json.load(open("examples.json"))["rows"]          # {{column: values}}
feeds = {{name: np.array(rows[name], object) if kind == "tensor(string)"
         else np.array([np.nan if value is None else value for value in rows[name]]) for name, kind in kinds.items()}}
print(session.run(None, feeds)[0])                        # the probabilities in examples.json
```

| column | input |
|---|---|
{columns}

Values that training did not have take the id for such values, missing ones that for missing values; words such as
NA and null are missing. Blanks at the ends of a text are not removed by `model.onnx`. With ctrlab, which needs no torch for it,
cells are read as in training:

```python
import ctrlab
ctrlab.load_bundle(".").predict(frame)                    # a pandas or polars data frame, or a dictionary of columns
```

or `ctrlab predict . rows.csv -o scores.parquet`. `model.ids.onnx` is the model alone: it reads ids and values and gives logits.
{calibration}`examples.json` holds {examples} rows with their probabilities; anything that serves this model should give them
to {tolerance:g}.
`bundle.json` has the columns, versions and the SHA-256 of every file.
"""


def readme(manifest: Mapping[str, Any], examples: int = 20) -> str:
    """What the bundle is and how to use it."""
    auc = manifest.get("auc")
    found = ""
    if auc:
        ends = f"95 % {auc['low']:.4f} to {auc['high']:.4f}"
        found = f" On {auc['rows']:,} {auc['split']} rows its AUC is {auc['estimate']:.4f} ({ends})."
    calibration = manifest["calibration"]
    return _TEXT.format(
        name=manifest["name"], ctrlab=manifest["ctrlab"], version=manifest["version"], auc=found, output=manifest["output"],
        form=" that multiplies integers" if manifest.get("form") == "integers" else "",
        columns="\n".join(f"| `{column['name']}` | {column['input']} |" for column in manifest["columns"]),
        calibration="" if calibration is None else (
            f"Probabilities are calibrated: the logit is {calibration['slope']:.4g} times that of `model.ids.onnx`, plus "
            f"{calibration['intercept']:.4g}.\n"
        ),
        examples=examples, tolerance=manifest["tolerance"],
    )  # fmt: skip
