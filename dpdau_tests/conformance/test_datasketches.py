"""Theta sketches are Apache DataSketches': bytes made here are those of their own updates, read by C++ and Java.

Unions and differences are theirs at work, held to sketches that were updated key by key, which ours never are.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import datasketches
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau_assets.core.errors import Refused
from dpdau_assets.core.facts import Keys
from dpdau_assets.core.sketches import theta, unite
from dpdau_assets.core.sketches.theta import ThetaEstimator, ThetaSketch

LG_K = 26  # the largest there is: a sketch that never fills
key_set = st.sets(st.integers(0, 2**64 - 1), max_size=200)
thetas = st.sampled_from([Fraction(1, 2**n) for n in (0, 1, 3, 6)])


def array(members: set[int]) -> Keys:
    return np.array(sorted(members), dtype=np.uint64)


def ours(keys: Keys, theta0: Fraction) -> ThetaSketch:
    return ThetaSketch.build(ThetaEstimator(theta0).header(3, "source"), keys)


def theirs(keys: Keys, theta0: Fraction) -> datasketches.compact_theta_sketch:
    """Key by key, as signed integers: their Python rounds what needs 64 bits unsigned to a float."""
    sketch = datasketches.update_theta_sketch(LG_K, p=float(theta0))
    for key in keys.astype(np.int64).tolist():
        sketch.update(key)
    return sketch.compact()


def read(sketch: ThetaSketch) -> datasketches.compact_theta_sketch:
    return datasketches.compact_theta_sketch.deserialize(bytes(sketch.body()))


@given(members=key_set.filter(bool), theta0=thetas)
def test_the_body_is_the_bytes_that_datasketches_writes(members: set[int], theta0: Fraction) -> None:
    assert bytes(ours(array(members), theta0).body()) == theirs(array(members), theta0).serialize()


def test_the_body_of_a_large_day_is_the_bytes_that_datasketches_writes() -> None:
    keys = np.unique(np.random.default_rng(1).integers(0, 2**64, 200_000, dtype=np.uint64))
    for theta0 in (Fraction(1), Fraction(1, 64)):
        assert bytes(ours(keys, theta0).body()) == theirs(keys, theta0).serialize()


@pytest.mark.parametrize("theta0", [Fraction(1), Fraction(1, 64)])
def test_a_sketch_of_nobody_is_read_as_one_of_no_hash(theta0: Fraction) -> None:
    nobody = ours(array(set()), theta0)
    assert (read(nobody).num_retained, read(nobody).get_estimate()) == (0, 0.0)
    assert read(nobody).serialize() == bytes(nobody.body())


def test_somebody_who_is_not_sampled_leaves_the_bytes_of_nobody() -> None:
    theta0 = Fraction(1, 64)
    unsampled = next(key for key in range(100) if not len(ours(array({key}), theta0).hashes))
    nobody = bytes(ours(array(set()), theta0).body())
    assert bytes(ours(array({unsampled}), theta0).body()) == theirs(array({unsampled}), theta0).serialize() == nobody
    assert theirs(array(set()), theta0).serialize() != nobody, "theirs tells the two apart"


@given(sets=st.lists(key_set.filter(bool), min_size=1, max_size=4), theta0=thetas)
def test_unions_are_those_of_datasketches(sets: list[set[int]], theta0: Fraction) -> None:
    union = datasketches.theta_union(LG_K, p=float(theta0))
    for members in sets:
        union.update(theirs(array(members), theta0))
    assert bytes(unite([ours(array(members), theta0) for members in sets]).body()) == union.get_result().serialize()


@given(members=key_set.filter(bool), gone=key_set.filter(bool), theta0=thetas)
def test_taking_users_out_is_a_not_b_of_datasketches(members: set[int], gone: set[int], theta0: Fraction) -> None:
    left = datasketches.theta_a_not_b().compute(theirs(array(members), theta0), theirs(array(gone), theta0))
    assert bytes(ours(array(members), theta0).without(array(gone)).body()) == left.serialize()


def test_a_result_under_another_theta_than_the_public_one_is_refused() -> None:
    """Such a sketch cannot come from `build` or from bytes: it is the library's result that is asked."""
    header = ThetaEstimator(Fraction(1, 2)).header(3, "source")
    sampled, other = ours(array(set(range(100))), Fraction(1, 2)), ours(array(set(range(100))), Fraction(1, 4))
    wrong = ThetaSketch(header, other.packed)
    for result in (lambda: unite([sampled, wrong]), lambda: wrong.without(array({1})), lambda: unite([wrong])):
        with pytest.raises(Refused, match="under θ0 = 1/2 gave one under another θ"):
            result()


@pytest.mark.parametrize("theta0", [Fraction(1), Fraction(1, 2)])
def test_a_union_that_the_library_would_trim_is_refused_instead(
    theta0: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With their default of 2^12 places, as it would be with 2^26 and so many users."""
    days = [ours(np.arange(first, first + 20_000, dtype=np.uint64), theta0) for first in (0, 10_000)]
    assert unite(days).body() == ours(np.arange(30_000, dtype=np.uint64), theta0).body()
    monkeypatch.setattr(theta, "LG_K", 12)
    with pytest.raises(Refused, match="set a smaller θ0"):
        unite(days)


def test_java_reads_the_same_hashes_and_estimates(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    sizes = [(1, 0), (1, 1), (1, 2), (1, 1_000), (64, 0), (64, 1), (64, 1_000), (64, 50_000)]
    sketches = [
        ours(np.unique(random.integers(0, 2**64, users, dtype=np.uint64)), Fraction(1, halved))
        for halved, users in sizes
    ]
    files = [tmp_path / f"{number}.theta" for number in range(len(sketches))]
    for file, sketch in zip(files, sketches, strict=True):
        file.write_bytes(sketch.body())
    *each, union = _read_by_java(files)
    for sketch, by_java in zip(sketches, each, strict=True):
        theta = read(sketch)
        assert by_java == {
            "retained": theta.num_retained,
            "theta": theta.theta64,
            "estimate": str(theta.get_estimate()),
            "sum": str(int(sketch.hashes.sum(dtype=np.uint64))),
        }
    below = {int(hash_) for sketch in sketches for hash_ in sketch.hashes if hash_ < 2**57}
    assert (union["retained"], union["theta"]) == (len(below), 2**57)


def _read_by_java(files: list[Path]) -> list[dict[str, object]]:
    jars = sorted(Path(os.environ.get("DPDAU_DATASKETCHES_JARS", "/nowhere")).glob("datasketches-*.jar"))
    if not jars or shutil.which("java") is None:
        reason = "needs java, and the datasketches-*.jar files in DPDAU_DATASKETCHES_JARS"
        pytest.fail(reason) if os.environ.get("DPDAU_CI") else pytest.skip(reason)
    source = Path(__file__).parent / "java" / "ReadTheta.java"
    command = ["java", "-cp", os.pathsep.join(map(str, jars)), str(source), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
