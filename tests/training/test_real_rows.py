"""Training on real Criteo rows reaches what the design says a DeepFM reaches on them."""

import os
from pathlib import Path

import pytest
import torch

from ctrlab.data.catalog import DATASETS
from ctrlab.data.encode import encode_dataset
from ctrlab.evaluation.metrics import evaluate_model
from ctrlab.models.base import build_model
from ctrlab.models.configs import DeepFMConfig
from ctrlab.training.configs import FitConfig
from ctrlab.training.loop import fit
