import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrlab.services import jobs
from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact
from ctrlab.ui import format
from tests.support.patience import PATIENCE
from tests.support.worker_support import ROOT


def texts(app) -> str:
    return "\n".join(item.value for kind in (app.markdown, app.caption, app.error, app.info, app.warning) for item in kind)


@pytest.mark.parametrize("name", ["Home", "Data", "Model", "Jobs", "Storage", "Learn"])
def test_every_page_opens_with_a_selected_model(name: str, open_page, model: str) -> None:
    app = open_page(name, model=model)
    assert not app.exception
    assert not app.error


def test_selecting_a_model_selects_its_dataset(open_page, dataset: str, model: str) -> None:
    app = open_page("Jobs", model=model)
    assert app.query_params["dataset"] in (dataset, [dataset])


def test_another_dataset_in_the_address_leaves_the_old_model(workspace: Workspace, open_page, model: str) -> None:
    other = workspace.store.artifacts.add(NewArtifact("dataset", "Other")).id
    app = open_page("Jobs", model=model)
    app.query_params.clear()
    app.query_params["dataset"] = other
    app.run()
    assert app.query_params["dataset"] in (other, [other])
    assert "model" not in app.query_params


def test_an_id_of_the_wrong_kind_is_reported_and_dropped(open_page, dataset: str) -> None:
    app = open_page("Jobs", model=dataset)
    assert "is a dataset, not a model" in app.warning[0].value
    assert "model" not in app.query_params


def test_the_session_remembers_the_selection_without_ids_in_the_address(open_page, dataset: str) -> None:
    app = open_page("Data", dataset=dataset)
    app.query_params.clear()
    app.run()
    assert app.query_params["dataset"] in (dataset, [dataset])


def test_every_page_opens_on_an_empty_home_and_loads_neither_torch_nor_sklearn_nor_numba(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "import ctrlab.ui.frame, ctrlab.ui.views.home\n"
        "print([name for name in ('pandas', 'polars', 'pyarrow') if name in sys.modules])\n"
        "from streamlit.testing.v1 import AppTest\n"
        "for name in ['Home', 'Data', 'Model', 'Spectra', 'Compress', 'Compare', 'Jobs', 'Storage', 'Learn']:\n"
        "    app = AppTest.from_file('app.py', default_timeout=120)\n"
        "    if name != 'Home': app.switch_page(f'pages/{name}.py')\n"
        "    app.run()\n"
        "    assert not app.exception and not app.error and len(app.title) == 1, (name, app.exception, app.error)\n"
        "print([name for name in ('torch', 'sklearn', 'onnxruntime', 'numba') if name in sys.modules])\n"
    )
    patch = "import ctrlab.services.jobs as j\nj.ensure_worker = lambda *a, **k: None\n"
    environment = os.environ | {"CTRLAB_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", patch + script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first_page, every_page = done.stdout.strip().splitlines()
    assert first_page == "[]"  # a fresh server shows it before these are loaded
    assert every_page == "[]"


# Data -------------------------------------------------------------------------------------------------------------------


def look_at(open_page, path: Path):
    app = open_page("Data")
    app.button_group(key="data-way").set_value("Your table").run()
    app.text_input(key="data-path").set_value(str(path))
    app.button(key="inspect").click().run()
    assert not app.exception
    return app


def a_table(path: Path, rows: int = 60) -> Path:
    lines = [f"{i % 3 == 0:d},{'abc'[i % 3]},{i * 1.5}" for i in range(rows)]
    path.write_text("clicked,color,price\n" + "\n".join(lines) + "\n")
    return path


def test_a_table_by_path_becomes_a_draft_and_then_a_job(open_page, workspace: Workspace, tmp_path: Path) -> None:
    app = look_at(open_page, a_table(tmp_path / "ads.csv"))
    assert not app.error
    assert app.text_input(key="name-1").value == "ads"
    app.button(key="encode").click().run()
    assert not app.error
    [job] = jobs.list_jobs(workspace)
    assert job.kind == "encode"
    assert {column["name"]: column["role"] for column in job.config["columns"]}["clicked"] == "label"
    assert app.query_params["job"] in (job.id, [job.id])


def test_a_split_that_does_not_add_up_is_one_sentence_and_nothing_is_lost(
    open_page, workspace: Workspace, tmp_path: Path
) -> None:
    app = look_at(open_page, a_table(tmp_path / "ads.csv"))
    app.text_input(key="name-1").set_value("mine")
    app.number_input(key="split-1-train").set_value(0.95).run()
    assert "must add up to 1" in app.error[0].value
    assert app.button(key="encode").disabled
    assert app.text_input(key="name-1").value == "mine"
    app.number_input(key="split-1-train").set_value(0.7).run()
    assert not app.button(key="encode").disabled


def test_a_bad_file_is_one_sentence_and_the_path_stays(open_page, tmp_path: Path) -> None:
    """One page for all of them, for the sentence goes with the next path."""
    bad = {
        "empty": (b"", "empty"),
        "binary": (b"\x00\x01\x02\xff\xfe" * 200, "binary.csv"),
        "ragged": (b"clicked,b\n1,x\n0,y,z,w\n1,q\n", "line 3"),
    }
    app = open_page("Data")
    app.button_group(key="data-way").set_value("Your table").run()
    for name, (content, words) in bad.items():
        path = tmp_path / f"{name}.csv"
        path.write_bytes(content)
        app.text_input(key="data-path").set_value(str(path))
        app.button(key="inspect").click().run()
        assert not app.exception
        assert len(app.error) == 1, name
        assert words in app.error[0].value.replace("\\", "")
        assert "unexpected" not in app.error[0].value
        assert app.text_input(key="data-path").value == str(path)


def test_a_path_that_does_not_exist_is_one_sentence(open_page, tmp_path: Path) -> None:
    app = look_at(open_page, tmp_path / "nowhere.csv")
    assert len(app.error) == 1
    assert "nowhere.csv" in app.error[0].value


def test_known_formats_show_address_size_and_checksum(open_page) -> None:
    app = open_page("Data")
    app.button_group(key="data-way").set_value("Known format").run()
    facts = texts(app)
    assert all(word in facts for word in ("Address", "https://", "Size", "Checksum", "Licence"))


def test_the_summary_of_a_dataset_is_shown_with_names_as_they_are(open_page, dataset: str) -> None:
    app = open_page("Data", dataset=dataset)
    assert [metric.value for metric in app.metric] == ["8.00 k rows", "1.00 k rows"]
    assert "1 categorical and 1 numeric fields · 1.20 k ids · 90.0 kB on disk · 3 unreadable cells" in texts(app)


# Model ------------------------------------------------------------------------------------------------------------------


def test_training_is_queued_with_the_settings_of_the_form(open_page, workspace: Workspace, dataset: str) -> None:
    app = open_page("Model", dataset=dataset)
    app.text_input(key="model-deepfm-mlp_dims").set_value("64, 32")
    app.number_input(key="fit-epochs").set_value(2)
    app.run()
    app.button(key="train").click().run()
    assert not app.exception
    [job] = jobs.list_jobs(workspace)
    assert (job.kind, job.config["model"]["mlp_dims"], job.config["fit"]["epochs"]) == ("train", [64, 32], 2)


def test_an_architecture_that_needs_a_list_says_so_without_one(open_page, dataset: str) -> None:
    app = open_page("Model", dataset=dataset)
    app.session_state["architecture"] = "din"
    app.run()
    assert not app.exception
    assert app.button(key="train").disabled
    assert any("DIN needs a list-valued field" in note.value for note in app.info)


def test_a_bad_setting_disables_training_and_says_why(open_page, dataset: str) -> None:
    app = open_page("Model", dataset=dataset)
    app.number_input(key="fit-epochs").set_value(0).run()
    assert "Epochs must be between 1 and 1000, got 0." in app.error[0].value
    assert app.button(key="train").disabled


def test_a_pickle_posing_as_a_checkpoint_is_refused_in_a_sentence(open_page, dataset: str, tmp_path: Path) -> None:
    import pickle

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    app = open_page("Model", dataset=dataset)
    app.text_input(key="checkpoint-path").set_value(str(path)).run()
    app.button(key="import").click().run()
    assert len(app.error) == 1
    assert "model.safetensors" in app.error[0].value
    assert app.text_input(key="checkpoint-path").value == str(path)


def test_the_selected_model_shows_its_size_and_that_it_was_not_measured(open_page, model: str) -> None:
    app = open_page("Model", model=model)
    assert [metric.value for metric in app.metric][1:3] == [format.NONE, "349 k"]


# Jobs -------------------------------------------------------------------------------------------------------------------


def finished(workspace: Workspace, **how) -> str:
    store = workspace.store.jobs
    submitted = store.submit("encode", "Encode ads", {})
    job = store.claim("tester", submitted.id)
    store.finish(job, **how)
    return submitted.id


def test_a_failed_job_shows_its_sentence_and_can_be_tried_again(open_page, workspace: Workspace) -> None:
    job_id = finished(workspace, state="failed", error="column a_b holds three values", error_expected=True)
    app = open_page("Jobs", job=job_id)
    assert app.error[0].value == "Column a\\_b holds three values."
    app.button(key=f"retry-{job_id}").click().run()
    assert jobs.get_job(workspace, job_id).state == "queued"


def test_an_unexpected_failure_shows_the_jobs_log(open_page, workspace: Workspace) -> None:
    job_id = finished(workspace, state="failed", error="KeyError: 'x'", error_expected=False)
    folder = jobs.get_job(workspace, job_id).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.txt").write_text("Traceback\nKeyError: 'x'\n")
    app = open_page("Jobs", job=job_id)
    assert "unexpected" in app.error[0].value
    assert any("KeyError" in code.value for code in app.code)


def test_a_queued_job_can_be_cancelled(open_page, workspace: Workspace) -> None:
    job_id = workspace.store.jobs.submit("encode", "Encode ads", {}).id
    app = open_page("Jobs", job=job_id)
    app.button(key=f"cancel-{job_id}").click().run()
    assert jobs.get_job(workspace, job_id).state == "cancelled"


def test_the_list_can_be_narrowed(open_page, workspace: Workspace) -> None:
    finished(workspace, state="failed", error="no", error_expected=True)
    workspace.store.jobs.submit("encode", "Waiting", {})
    app = open_page("Jobs")
    assert len([text for text in app.caption if "waiting" in text.value or "took" in text.value]) == 2
    app.button_group(key="jobs-filter").set_value("Not finished").run()
    assert len([text for text in app.caption if text.value == "waiting"]) == 0


# Learn ------------------------------------------------------------------------------------------------------------------


def test_every_topic_opens_by_its_address_and_its_demo_moves(open_page) -> None:
    from ctrlab.ui.topics import TOPICS

    for name, topic in TOPICS.items():
        app = open_page("Learn", topic=name)
        assert not app.exception
        assert not app.error
        assert app.subheader[0].value == topic.title


def test_the_break_even_demo_says_when_factors_are_not_smaller(open_page) -> None:
    app = open_page("Learn", topic="break-even")
    app.slider(key="even-rank-400").set_value(200).run()
    assert "not smaller" in texts(app)
    app.slider(key="even-rank-400").set_value(100).run()
    assert "50.0 % smaller" in texts(app)


def test_the_demos_compute_what_the_text_says() -> None:
    import numpy as np

    from ctrlab.ui.views.learn_demos import principal_directions, truncate

    points = np.random.default_rng(0).standard_normal((500, 3)) @ np.diag([3.0, 1.0, 0.1])
    points -= points.mean(axis=0)
    eigenvalues, eigenvectors = principal_directions(points)
    kept = points @ eigenvectors[:, :1] @ eigenvectors[:, :1].T
    assert ((points - kept) ** 2).sum(axis=1).mean() == pytest.approx(eigenvalues[1:].sum(), rel=1e-10)
    rebuilt, lost = truncate(points, 1)
    assert ((points - rebuilt) ** 2).sum() / (points**2).sum() == pytest.approx(lost, rel=1e-10)
