"""Settings and fixtures of all tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.shared import once, run_folder

if TYPE_CHECKING:
    from tests.support.small_lab import SmallLab

# The same examples in every run, so that a failure can be repeated; no example fails because the machine is busy.
settings.register_profile(
    "ctrlab", derandomize=True, database=None, deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ctrlab")

# Before torch is imported anywhere: waiting OpenMP threads sleep, as in the processes that ctrlab starts, and test processes that
# share the machine with each other compute on one thread each.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Promises of time are of a quiet machine: they run only where `-m` names them."""
    if "promise" in config.option.markexpr:
        return
    promises = [item for item in items if item.get_closest_marker("promise")]
    if promises:
        config.hook.pytest_deselected(items=promises)
        items[:] = [item for item in items if item not in promises]


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real files, or a skip that says why."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("CTRLAB_REALDATA", beside))
    if not folder.is_dir():
        pytest.skip(
            "no real data here: set CTRLAB_REALDATA to a folder with criteo_137k.parquet, avazu_33k.csv.gz and frappe_x1/"
        )
    return folder


@pytest.fixture(scope="session")
def brief_timings() -> Iterator[None]:
    """Jobs done in this process time every batch size for a moment only: for tests that ask nothing of how exact times are."""
    from ctrlab.services.work import timing

    with pytest.MonkeyPatch.context() as patch:
        own = timing.time_together
        patch.setattr(timing, "time_together", lambda *args, **settings: own(*args, **{**settings, "seconds": 0.01, "rounds": 6}))
        yield


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory, brief_timings: None) -> tuple[Path, dict[str, str]]:
    """A folder with an encoded table and a trained DeepFM, made by the first test process that needs it, and their ids."""
    from tests.support.small_lab import make_small_home

    folder = run_folder(tmp_path_factory) / "small"
    return folder, once(folder.with_suffix(".json"), lambda: make_small_home(folder))


@pytest.fixture(scope="module")
def small_lab(small_home: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator["SmallLab"]:
    """A copy of `small_home` for one test module."""
    from tests.support.small_lab import copied

    small = copied(*small_home, tmp_path_factory.mktemp("copy") / "home")
    with small.lab:
        yield small
