"""Models in a comparison with everything that its reports need."""

from collections.abc import Sequence

import pandas as pd

from ctrlab.services.comparison import table_of_models
from ctrlab.services.controls import finetune_key, run_group
from ctrlab.services.doubts import doubts_of_models
from ctrlab.services.models import require_models
from ctrlab.services.of_model import newest_of_models
from ctrlab.services.workspace import Workspace


def compared_models(workspace: Workspace, model_ids: Sequence[str], baseline: str | None = None) -> pd.DataFrame:
    """`comparison_table` with finetune and run_group (of `controls`), doubts and tags ("; " between several), note and star."""
    models = require_models(workspace, model_ids)
    evaluations = newest_of_models(workspace, "evaluation", model_ids)
    doubts = doubts_of_models(workspace, models, evaluations)
    return table_of_models(workspace, models, evaluations, baseline).assign(
        finetune=[finetune_key(model) for model in models],
        run_group=[run_group(model) for model in models],
        doubts=["; ".join(doubts[model.id]) for model in models],
        note=[model.annotation.note for model in models],
        tags=["; ".join(model.annotation.tags) for model in models],
        star=[model.annotation.star for model in models],
    )
