"""Makes the benchmark's FuxiCTR model importable, which these tests use as well."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
