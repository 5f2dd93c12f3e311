"""Tables in files: the same spectrum and latents as in memory, whatever the shape, type, counts and offset."""

import functools
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

from ctrlab.__main__ import main
from ctrlab.compression.projection import project_rows_
from ctrlab.compression.streaming import compress_table as compress_whole_blocks
from ctrlab.compression.streaming import open_stored_table
from ctrlab.errors import CompressionError, DataError, JobCancelled, SpectrumError

#: Some tens of rows a block, so that every table here takes many.
compress_table = functools.partial(compress_whole_blocks, block_bytes=4096)


def _table(num_ids, width, offset=0.0, seed=0):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(width, width)) * 0.6 ** np.arange(width)[:, None]
    return (random.normal(size=(num_ids, width)) @ mixing + offset).astype(np.float32)


def _oracle(table, counts):
    """(mean, eigenvalues) by plain NumPy in float64."""
    rows, weights = table.astype(np.float64), counts.astype(np.float64)
    mean = weights @ rows / weights.sum()
    covariance = (rows - mean).T @ ((rows - mean) * weights[:, None]) / weights.sum()
    return mean, np.linalg.eigvalsh(covariance)[::-1]


@pytest.mark.parametrize(
    ("num_ids", "width", "rank"), [(1, 3, 1), (255, 1, 1), (256, 4, 4), (700, 5, 2), (3001, 16, 4), (900, 70, 9)]
)
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_a_table_in_a_file_is_compressed_as_plain_numpy_would(tmp_path, num_ids, width, rank, offset):
    table = _table(num_ids, width, offset)
    counts = np.random.default_rng(1).zipf(1.5, num_ids) * (np.arange(num_ids) % 3 > 0)
    counts[0] = 7
    np.save(tmp_path / "table.npy", table)
    np.save(tmp_path / "counts.npy", counts)
    found = compress_table(tmp_path / "table.npy", tmp_path / "counts.npy", rank, tmp_path / "out.safetensors", threads=2)
    mean, values = _oracle(table, counts)
    written = load_file(tmp_path / "out.safetensors")
    assert sorted(written) == ["eigenvalues", "latents", "mean", "projection"] and written["latents"].shape == (num_ids, rank)
    np.testing.assert_allclose(found.spectrum.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.spectrum.eigenvalues, np.maximum(values, 0), rtol=0, atol=1e-11 * values.sum() + 1e-20)
    # Eigenvectors of nearly equal eigenvalues may turn; what is rebuilt may not.
    restored = written["latents"].astype(np.float64) @ found.spectrum.eigenvectors[:, :rank].T + mean
    expected = (table - mean) @ found.spectrum.eigenvectors[:, :rank] @ found.spectrum.eigenvectors[:, :rank].T + mean
    np.testing.assert_allclose(restored, expected, rtol=0, atol=1e-6 * np.abs(table - mean).max() + 1e-9)
    error = (counts / counts.sum()) @ ((table - restored) ** 2).sum(1)
    assert error == pytest.approx(found.description()["mean_squared_error"], rel=1e-5, abs=1e-9 * values.sum() + 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_of_a_safetensors_file_gives_what_the_same_rows_give_in_memory(tmp_path, dtype):
    table = torch.tensor(_table(500, 8)).to(dtype)
    save_file({"emb.weight": table, "other": torch.ones(3, 3), "bias": torch.ones(3)}, tmp_path / "model.safetensors")
    found = compress_table(tmp_path / "model.safetensors", None, 3, tmp_path / "out.npy", tensor="emb.weight", threads=1)
    target = torch.empty(500, 3)
    basis, mean = torch.tensor(found.spectrum.eigenvectors[:, :3]), torch.tensor(found.spectrum.mean)
    project_rows_(target, table, basis, mean)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), target.numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "out.projection.npy"), found.projection)
    torch.testing.assert_close(mean, table.double().mean(0), rtol=1e-12, atol=1e-12)


def test_threads_and_the_place_of_the_counts_change_nothing(tmp_path):
    np.save(tmp_path / "table.npy", _table(2000, 6))
    counts = np.arange(2000, dtype=np.int32)
    np.save(tmp_path / "counts.npy", counts)
    outs = []
    for number, (given, threads) in enumerate([(counts, 1), (counts, 3), (tmp_path / "counts.npy", 2)]):
        compress_table(tmp_path / "table.npy", given, None, tmp_path / f"{number}.safetensors", variance=0.9, threads=threads)
        outs.append((tmp_path / f"{number}.safetensors").read_bytes())
    assert outs[0] == outs[1] == outs[2]


def test_progress_rises_to_one_and_a_cancelled_run_leaves_nothing(tmp_path):
    np.save(tmp_path / "table.npy", _table(2000, 6))
    seen = []
    compress_table(tmp_path / "table.npy", None, 2, tmp_path / "out.npy", on_progress=lambda share, _: seen.append(share))
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 10
    calls = iter(range(1000))
    with pytest.raises(JobCancelled, match="nothing was kept"):
        compress_table(tmp_path / "table.npy", None, 2, tmp_path / "b.npy", should_stop=lambda: next(calls) > 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.eigenvalues.npy", "out.mean.npy", "out.npy", "out.projection.npy", "table.npy",
    ]  # fmt: skip


def _files(folder):
    np.save(folder / "table.npy", _table(20, 4))
    np.save(folder / "long.npy", np.ones(21, np.int64))
    np.save(folder / "negative.npy", np.full(20, -1))
    np.save(folder / "zero.npy", np.zeros(20))
    np.save(folder / "text.npy", np.array(["a"] * 20))
    np.save(folder / "turned.npy", np.asfortranarray(_table(20, 4)))
    np.save(folder / "nan.npy", np.full((20, 4), np.nan, np.float32))
    (folder / "short.npy").write_bytes((folder / "table.npy").read_bytes()[:-1])
    (folder / "bad.safetensors").write_bytes(b"\xff" * 40)
    save_file({"a": torch.ones(2, 2), "b": torch.ones(2, 2), "c": torch.ones(2, 2).long()}, folder / "two.safetensors")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"path": "gone.npy"}, DataError, "cannot be read"),
        ({"path": "table.csv"}, DataError, "neither .npy nor .safetensors"),
        ({"path": "short.npy"}, DataError, "cut short"),
        ({"path": "turned.npy"}, DataError, "column by column"),
        ({"path": "text.npy"}, DataError, "float32 or float16"),
        ({"path": "bad.safetensors"}, DataError, "no .safetensors file"),
        ({"path": "two.safetensors"}, DataError, "its matrices are a, b, c"),
        ({"path": "two.safetensors", "tensor": "c"}, DataError, "is I64"),
        ({"path": "table.npy", "tensor": "x"}, DataError, "one unnamed array"),
        ({"path": "nan.npy"}, SpectrumError, "not finite"),
        ({"counts": "long.npy"}, DataError, "one count for each id"),
        ({"counts": "negative.npy"}, DataError, "negative"),
        ({"counts": "zero.npy"}, SpectrumError, "no rows were seen"),
        ({"counts": "text.npy"}, DataError, "counts are"),
        ({"rank": 5}, CompressionError, "between 1 and 4"),
        ({"rank": None}, CompressionError, "either the rank"),
        ({"variance": 0.9}, CompressionError, "either the rank"),
        ({"rank": None, "variance": 1.5}, CompressionError, "between 0 and 1"),
        ({"out": "x.bin"}, DataError, "neither .npy nor .safetensors"),
        ({"out": "no/x.npy"}, DataError, "make it first"),
    ],
)
def test_what_cannot_be_compressed_is_said_in_a_sentence(tmp_path, settings, error, message):
    _files(tmp_path)
    before = sorted(tmp_path.iterdir())
    given = {"path": "table.npy", "counts": None, "rank": 2, "out": "out.npy"} | settings
    given |= {name: tmp_path / given[name] for name in ("path", "counts", "out") if given[name] is not None}
    with pytest.raises(error, match=message):
        compress_table(**given)
    assert sorted(tmp_path.iterdir()) == before


def test_the_verb_writes_the_file_and_says_what_was_kept(tmp_path, capsys):
    _files(tmp_path)
    assert (
        main(["compress-table", str(tmp_path / "table.npy"), "--rank", "2", "--output", str(tmp_path / "o.npy"), "--json"]) == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters_before"] == 80 and facts["parameters_after"] == 20 * 2 + 4 * 3
    assert open_stored_table(tmp_path / "o.npy").width == 2
    assert main(["compress-table", str(tmp_path / "gone.npy"), "--rank", "2", "--output", str(tmp_path / "p.npy")]) == 1
    assert "cannot be read" in capsys.readouterr().err
