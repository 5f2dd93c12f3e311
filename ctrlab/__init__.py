"""ctrlab: see, choose and measure low-rank compression of click-through-rate models.

    import ctrlab
    lab = ctrlab.Lab()
    ids = lab.open_sample()
    compressed = lab.compress(ids["model"], variance=0.95, finetune=ctrlab.FINETUNE)
    print(lab.compare([ids["model"], compressed.id]))

Names are imported when first used, so `import ctrlab` itself is instant and loads no torch. It changes nothing in the importing
process.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "spectra": "ctrlab.anymodule",
    "compress": "ctrlab.anymodule",
    "restore": "ctrlab.anymodule",
    "load_bundle": "ctrlab.serving.bundle.read",
    "OutsideModel": "ctrlab.anymodule.outside",
    "Lab": "ctrlab.services.lab",
    "evaluate_scores": "ctrlab.services.given_scores",
    "GivenScoresConfig": "ctrlab.services.given_scores",
    "open_workspace": "ctrlab.services.workspace",
    "TrainConfig": "ctrlab.services.models",
    "FitConfig": "ctrlab.training.configs",
    "FINETUNE": "ctrlab.training.configs",
    "CompressConfig": "ctrlab.plans.configs",
    "RankPlan": "ctrlab.plans.configs",
    "Budget": "ctrlab.plans.budgets",
    "DatasetConfig": "ctrlab.data.configs",
    "ColumnConfig": "ctrlab.data.configs",
    "SourceConfig": "ctrlab.data.configs",
    "SplitConfig": "ctrlab.data.configs",
    "CtrlabError": "ctrlab.errors",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ctrlab' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
