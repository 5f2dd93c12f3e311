"""The pages of the dashboard, in the order of the story they tell."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Page:
    """One page: its address is `/<name>`; `lead` is the line under its title."""

    name: str
    path: str
    icon: str
    title: str
    lead: str
    group: str


PAGES: dict[str, Page] = {
    page.name: page
    for page in (
        Page("Home", "app.py", ":material/home:", "Make a CTR model smaller, and see why it can be", "", ""),
        Page("Data", "pages/Data.py", ":material/table_rows:", "Data", "Bring click logs and encode them for training.", "Steps"),
        Page("Model", "pages/Model.py", ":material/account_tree:", "Model", "Train a CTR model, or bring one.", "Steps"),
        Page(
            "Spectra", "pages/Spectra.py", ":material/bar_chart:", "Spectra",
            "How many directions each layer's output really uses.", "Steps",
        ),
        Page(
            "Compress", "pages/Compress.py", ":material/compress:", "Compress",
            "Choose a rank for every layer and see what it costs before anything runs.", "Steps",
        ),
        Page(
            "Compare", "pages/Compare.py", ":material/balance:", "Compare",
            "AUC, size and speed of the original and its compressed versions.", "Steps",
        ),
        Page("Jobs", "pages/Jobs.py", ":material/pending_actions:", "Jobs", "Everything that ran or runs.", "Beside"),
        Page("Learn", "pages/Learn.py", ":material/school:", "Learn", "The ideas behind the charts, in small steps.", "Beside"),
    )
}  # fmt: skip
