import re

from playwright.sync_api import Page, expect

from tests.support.browser import Dashboard
from tests.support.patience import PATIENCE


def type_number(page: Page, label: str, value: str) -> None:
    box = page.get_by_label(label, exact=True)
    box.fill(value)
    box.press("Enter")
    expect(page.locator("[data-testid=stApp]")).to_have_attribute("data-test-script-state", "notRunning")


def test_a_model_is_trained_with_live_curves_and_is_selected(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?dataset={sample['dataset']}")
    type_number(page, "Batch size (rows)", "256")
    type_number(page, "Epochs", "3")  # long enough to see the curves while it trains
    page.get_by_role("textbox", name="MLP widths").fill("32, 16")
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Name", exact=True).fill("Small net")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Train DeepFM").click()
    expect(page).to_have_url(re.compile("job=job-"))
    expect(page.get_by_role("progressbar").first).to_be_visible()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    expect(page.locator(".st-key-selected")).to_contain_text("Small net")
    expect(page.get_by_test_id("stMetric").nth(1)).to_contain_text(re.compile(r"0\.[5-9]\d\d\d"))


def test_a_training_shows_in_a_second_browser_and_is_cancelled_from_there(sample, dashboard: Dashboard, browser) -> None:
    page = dashboard.open(f"/Model?dataset={sample['dataset']}")
    type_number(page, "Epochs", "200")
    type_number(page, "Patience", "0")
    page.get_by_role("button", name="Train DeepFM").click()
    expect(page.get_by_text(re.compile(r"running"))).to_be_visible()
    other = browser.new_page()
    other.set_default_timeout(1000 * PATIENCE)
    other.goto(page.url)
    other.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text(re.compile("^Cancelled after"))).to_be_visible()
    expect(page.get_by_role("button", name="Retry")).to_be_visible()
    other.context.close()


def test_a_bad_setting_says_so_and_stays(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?dataset={sample['dataset']}")
    page.get_by_role("textbox", name="MLP widths").fill("wide")
    page.keyboard.press("Enter")
    expect(page.get_by_text("MLP widths must be whole numbers separated by commas")).to_be_visible()
    expect(page.get_by_role("button", name="Train DeepFM")).to_be_disabled()
    page.get_by_test_id("stSidebar").get_by_role("link", name="Data").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Data")
    page.get_by_test_id("stSidebar").get_by_role("link", name="Model").click()
    expect(page.get_by_role("textbox", name="MLP widths")).to_have_value("wide")


def test_a_pickle_posing_as_a_checkpoint_is_refused(sample, dashboard: Dashboard, tmp_path) -> None:
    import pickle

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps({"weights": [1.0]}))
    page = dashboard.open(f"/Model?dataset={sample['dataset']}")
    page.get_by_text("Import a checkpoint").click()
    page.locator("input[type=file]").first.set_input_files(path)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_test_id("stAlertContentError")).to_contain_text("model.safetensors")


def test_the_diagram_is_drawn_and_another_architecture_is_one_click_away(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?dataset={sample['dataset']}&model={sample['model']}")
    page.get_by_text("Structure in words").click()
    picture = page.get_by_test_id("stMermaidChart").get_by_role("img")
    expect(picture).to_be_visible()
    expect(picture).to_have_attribute("alt", re.compile(r"^Training form: .* parameters in 3 blocks"))
    source = picture.evaluate("image => fetch(image.src).then(answer => answer.text())")
    for name in ("embedding", "fm", "mlp.0", "logit"):
        assert name in source
    page.get_by_text("Train another model").click()
    page.get_by_role("radio", name="DCN V2", exact=True).click()
    expect(page.get_by_role("button", name="Train DCN V2")).to_be_enabled()
    expect(page.get_by_label("Cross layers", exact=True)).to_be_visible()


def test_a_click_on_a_layer_of_the_map_shows_its_spectrum(sample, dashboard: Dashboard) -> None:
    page = dashboard.open(f"/Model?dataset={sample['dataset']}&model={sample['model']}")
    layer = page.locator(".st-key-model-map .js-plotly-plot .trace.bars").last.locator(".point").first
    box = layer.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(page.get_by_role("heading", level=1)).to_have_text("Spectra")
    expect(page).to_have_url(re.compile("layer=embedding"))
