"""The header's menus, and the Home page's results."""

from ctrlab.services.workspace import Workspace
from ctrlab.storage import NewArtifact
from tests.support.workspaces import add_compressed, add_evaluation, deepfm_workspace


def test_another_dataset_is_selected_without_leaving_the_page(open_page, workspace: Workspace, dataset: str, model: str) -> None:
    other = workspace.store.artifacts.add(NewArtifact("dataset", "Другие клики, 点击日志" * 3, summary={})).id
    app = open_page("Jobs", model=model)
    app.button(key=f"menu-dataset-{other}").click().run()
    assert not app.exception and app.title[0].value == "Jobs"
    assert app.query_params["dataset"] in (other, [other]) and "model" not in app.query_params


def test_of_many_models_the_header_lists_the_newest_and_finds_the_others(open_page, workspace: Workspace, model: str) -> None:
    first = workspace.store.artifacts.get(model)
    for number in range(9):
        workspace.store.artifacts.add(
            NewArtifact("model", f"Model {number}", parents=first.parents, config=first.config, summary=first.summary)
        )
    app = open_page("Jobs", model=model)
    assert len([button for button in app.button if str(button.key).startswith("menu-model-")]) == 8
    box = app.selectbox(key=f"menu-model-all-{model}")
    oldest = next(artifact.id for artifact in workspace.store.artifacts.list(kind="model") if artifact.name == "Model 0")
    box.set_value(oldest).run()
    assert app.query_params["model"] in (oldest, [oldest])


def test_home_continues_with_the_newest_model_and_lists_results_with_auc_and_size(open_page, workspace: Workspace) -> None:
    ids = deepfm_workspace(workspace.home, num_tables=3, mlp_dims=(40, 40))
    app = open_page("Home")
    assert any("Choose ranks" in str(element.proto) for element in app.main)
    compressed = add_compressed(workspace, ids, name="Smaller $x$ [1]")
    add_evaluation(workspace, ids["model"], auc=0.7700)
    add_evaluation(workspace, compressed.id, auc=0.7706)
    app = open_page("Home")
    text = " ".join(element.value for element in app.markdown)
    assert "4.0x smaller, AUC 0.7706 (+0.0006)" in text and "Smaller \\$x\\$ \\[1\\]" in text
    links = " ".join(str(element.proto) for element in app.main)
    assert f"{ids['model']},{compressed.id}" in links.replace("%2C", ",")


def test_while_the_sample_is_opened_the_browser_loads_what_the_first_chart_needs(open_page) -> None:
    app = open_page("Home")
    assert not any("PlotlyChart" in str(element.proto) for element in app.main)
    app.button(key="try-sample").click().run()
    assert any("PlotlyChart" in str(element.proto) for element in app.main)
