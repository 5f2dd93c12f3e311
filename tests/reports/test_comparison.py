"""Pareto fronts of comparison tables."""

import numpy as np
import pandas as pd

from ctrlab.reports.comparison import pareto_mask


def test_pareto_front_matches_a_brute_force_search():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"parameters": random.integers(1, 9, 40).astype(float), "auc": random.integers(1, 9, 40) / 10})
    table.loc[3, "auc"] = np.nan

    def dominated(i):
        here = table.loc[i]
        return any(
            there.parameters <= here.parameters
            and there.auc >= here.auc
            and (there.parameters, there.auc) != (here.parameters, here.auc)
            for _, there in table.iterrows()
        )

    expected = [not np.isnan(table.auc[i]) and not dominated(i) for i in table.index]
    assert pareto_mask(table).tolist() == expected
