"""The probe of a stored model: rows that are kept in memory, on which plans are measured."""

from ctrlab.decomposition.collect import look_up_counts
from ctrlab.measuring.probe import MAX_ROWS, PlanProbe, Probe
from ctrlab.services.capabilities import is_outside
from ctrlab.services.models import model_profile
from ctrlab.services.outside import abilities
from ctrlab.services.work.outside import OutsideProbe, open_outside
from ctrlab.services.work.shared import open_model, open_spectra
from ctrlab.services.workspace import Workspace


def open_probe(
    workspace: Workspace, model_id: str, spectra_id: str, max_rows: int = MAX_ROWS, *, with_counts: bool = False
) -> PlanProbe:
    """A probe on at most `max_rows` validation rows; of an outside model on its own labelled rows.

    with_counts: of the ids of its tables, for the methods that need them.

    Raises:
        ConfigError: it is an outside model that cannot be measured; the sentence says why.
    """
    stored = workspace.store.artifacts.get(model_id)
    spectra = open_spectra(workspace, spectra_id)
    if is_outside(stored):
        abilities(workspace, stored).require("sensitivity")
        return OutsideProbe(open_outside(workspace, stored), model_profile(workspace, model_id), spectra, max_rows)
    _, model, dataset = open_model(workspace, model_id)
    counts = look_up_counts(model, dataset) if with_counts else None
    return Probe(model, spectra, dataset.split("valid"), counts=counts, max_rows=max_rows)
