"""The pages of the dashboard, in the order of the sidebar."""

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


_WORKFLOW, _MORE = "Workflow", "More"

PAGES: dict[str, Page] = {
    page.name: page
    for page in (
        Page("Home", "app.py", ":material/home:", "Make a CTR model smaller, and see why it can be", "", ""),
        Page("Data", "pages/Data.py", ":material/table_rows:", "Data", "Encode a click log for training.", _WORKFLOW),
        Page("Model", "pages/Model.py", ":material/account_tree:", "Model", "Train a CTR model or import one.", _WORKFLOW),
        Page(
            "Spectra", "pages/Spectra.py", ":material/bar_chart:", "Spectra",
            "How many directions the output of each layer uses.", _WORKFLOW,
        ),
        Page(
            "Compress", "pages/Compress.py", ":material/compress:", "Compress",
            "Choose the ranks; size and accuracy are predicted and measured before a job runs.", _WORKFLOW,
        ),
        Page(
            "Compare", "pages/Compare.py", ":material/balance:", "Compare",
            "AUC, size and speed of the original and its compressed versions.", _WORKFLOW,
        ),
        Page("Jobs", "pages/Jobs.py", ":material/pending_actions:", "Jobs", "Background jobs: queued, running, finished.", _MORE),
        Page(
            "Storage", "pages/Storage.py", ":material/database:", "Storage",
            "Everything stored: find, name, tag, archive and delete it, and free disk space.", _MORE,
        ),
        Page("Learn", "pages/Learn.py", ":material/school:", "Learn", "The ideas behind the charts, one topic at a time.", _MORE),
    )
}  # fmt: skip
