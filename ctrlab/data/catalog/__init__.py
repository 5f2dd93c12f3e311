"""Known public datasets: source, size, licence and the config that reads them."""

from ctrlab.data.catalog.avazu import AVAZU
from ctrlab.data.catalog.criteo import CRITEO, CRITEO_X1
from ctrlab.data.catalog.frappe import FRAPPE_X1
from ctrlab.data.catalog.known import KnownDataset
from ctrlab.data.catalog.movielens import MOVIELENS
from ctrlab.registry import Registry

DATASETS = Registry("known dataset", CRITEO, AVAZU, FRAPPE_X1, MOVIELENS, CRITEO_X1)

__all__ = ["DATASETS", "KnownDataset"]
