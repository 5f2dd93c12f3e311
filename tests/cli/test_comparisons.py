"""`compare` and `compress --controls` print intervals, changes, calibration and clicks, as the pages do."""

import json
import re

import pytest

from ctrlab.__main__ import main


@pytest.fixture
def run(small_lab, capsys, brief_timings):
    def call(*words):
        code = main([*words, "--home", str(small_lab.lab.workspace.home)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return call


def test_compress_with_controls_prints_every_arm_with_its_interval(small_lab, run):
    words = ["compress", small_lab.model.id, "--ranks", "mlp.0=4", "--batch-size", "512", "--epochs", "1", "--controls"]
    lines = run(*words).splitlines()
    found = [line for line in lines if re.fullmatch(r"model-\w+", line)]
    end = next(number for number, line in enumerate(lines) if line.startswith("measured on"))
    header, arms = lines[len(found)], lines[len(found) + 2 : end]
    assert len(found) == 4 and len(arms) == 5  # the original and: compressed, fine-tuned alone, truncated only, from scratch
    assert all(name in header for name in ("AUC", "95 %", "AUC change", "log loss", "predicted/observed"))
    names = ["fine-tuned alone", "truncated only", "small from scratch"]
    assert all(any(name in line for line in arms) for name in names), arms
    assert all(re.search(r"0\.\d{4}  0\.\d{4} to 0\.\d{4}", line) for line in arms)
    assert len([line for line in arms if re.search(r"[+±\u2212]0\.\d{4} to [+±\u2212]0\.\d{4}", line)]) == 4
    assert re.fullmatch(r"measured on \d+ test rows with \d+ clicks", lines[end])
    assert "timed in turns in one job" in lines[end + 1] and "not timed in one job" not in "".join(lines)
    compared = json.loads(run("compare", small_lab.model.id, *found, "--json"))["models"]
    assert [row["kind"] for row in compared] == ["original", "compressed", "control", "compressed", "from_scratch"]
    assert all(row["torch_speedup_4096"] > 0 for row in compared[1:]) and compared[0]["torch_speedup_4096"] is None
    assert all(0.2 < row["calibration_ratio"] < 5 and row["measured_clicks"] > 0 for row in compared)
