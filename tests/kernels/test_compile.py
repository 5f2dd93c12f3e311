"""kernels/compile.py: the machine code cache, from processes of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba import types

import ctrlab
from ctrlab.kernels.compile import compiled

PACKAGE = Path(ctrlab.__file__).parent
_SUM = """
import numpy as np
from ctrlab.kernels.vectors import add, load, store
from ctrlab.kernels.probe import plus
x, out = np.arange(8, dtype=np.float32), np.empty(8, np.float32)
plus(x, out)
print(out.tolist(), sum(plus.stats.cache_hits.values()))
"""
_LOOP = """
from ctrlab.kernels.compile import compiled
from ctrlab.kernels.vectors import add, load, store


@compiled()
def plus(x, out):
    store(out, 0, add(load(x, 0), load(x, 0)))
"""


@pytest.fixture
def copy(tmp_path):
    """A folder with a copy of the package whose kernels have one loop more, which calls an intrinsic of another file."""
    shutil.copytree(PACKAGE, tmp_path / "ctrlab", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "ctrlab" / "kernels" / "probe.py").write_text(_LOOP)
    return tmp_path


def run(folder, code, **environment):
    own = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(folder / "cache")}
    own.pop("NUMBA_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=own | environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_edit_of_an_inlined_function_alone_changes_what_runs(copy):
    doubled = [2.0 * number for number in range(8)]
    assert run(copy, _SUM) == f"{doubled} 0"
    assert run(copy, _SUM) == f"{doubled} 1"  # from the cache
    vectors = copy / "ctrlab" / "kernels" / "vectors.py"
    vectors.write_text(vectors.read_text().replace("builder.fadd(*xs)", "builder.fsub(*xs)"))
    assert run(copy, _SUM) == f"{[0.0] * 8} 0"


def test_an_edit_of_the_encoders_hash_alone_changes_its_keys(copy):
    code = """
import numpy as np
from ctrlab.data.encoding.compiled.keys import key_of
print(int(key_of(np.frombuffer(b"longer than eight", np.uint8), 0, 17)))
"""
    before = run(copy, code)
    keys = copy / "ctrlab" / "data" / "encoding" / "compiled" / "keys.py"
    keys.write_text(keys.read_text().replace("key >> np.uint64(30)", "key >> np.uint64(29)"))
    assert run(copy, code) != before


def test_without_a_writable_home_loops_are_cached_in_a_private_temporary_folder(copy):
    temporary = copy / "temporary"
    temporary.mkdir()
    nowhere = copy / "file"
    nowhere.write_text("")  # no folder can be made below a file
    settings = {"XDG_CACHE_HOME": str(nowhere), "TMPDIR": str(temporary)}
    assert run(copy, _SUM, **settings).endswith(" 0") and run(copy, _SUM, **settings).endswith(" 1")
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o077 == 0


def test_the_caches_of_numba_for_other_code_are_left_alone(copy):
    code = "import numba; before = numba.config.CACHE_DIR; import ctrlab.kernels.rows; print(numba.config.CACHE_DIR == before)"
    assert run(copy, code) == "True"


def test_each_signature_has_a_file_of_its_own_that_is_never_overwritten_by_another(copy):
    code = """
import sys
import numpy as np
from ctrlab.kernels.rows import group_rows
own = sys.argv[1]
ids, offsets = np.zeros((1, 1), own), np.zeros(1, np.int64)
print(group_rows(ids, offsets, np.zeros(9, np.int32)).rows.tolist())
"""
    for own in ("int32", "int64"):
        assert run(copy, code.replace("sys.argv[1]", repr(own))) == "[0]"
    folder = copy / "cache" / "ctrlab" / "machine-code"
    files = [path for path in folder.rglob("*.nbc") if path.name.startswith("rows._find_rows")]
    assert len(files) == 2


@compiled()
def _first_from(numbers, start):  # pragma: no cover - compiled
    return numbers[start]


def test_a_loop_is_compiled_once_for_calls_with_constants_and_with_variables():
    numbers = types.Array(types.int64, 1, "C")
    for start in (types.literal(0), types.literal(1), types.int64):
        _first_from.get_call_template((numbers, start), {})
    assert len(_first_from.signatures) == 1
