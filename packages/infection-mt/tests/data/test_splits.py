"""Splits beyond the golden cases: rotating folds, groups, links, errors before training, confounding."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infection_mt.config import Config, CrossValidationConfig, DataConfig, SplitConfig
from infection_mt.data import splits as module
from infection_mt.data.splits import (
    SIDES,
    Split,
    SplitError,
    check_disjoint,
    check_undivided,
    check_usable,
    confounding,
    kfold_split,
    make_split,
    stratified_split,
    units_of,
)
from infection_mt.data.stacks import Stack

RATIOS = (0.6, 0.2, 0.2)


def _config(num_folds=1, test=None, group="stack", overlap="off", ratios=RATIOS, seed=3):
    return Config(
        data=DataConfig(
            infected_dir=Path("i"), uninfected_dir=Path("u"), split_ratios=ratios, split_seed=seed
        ),
        cv=CrossValidationConfig(num_folds=num_folds, test=test),
        split=SplitConfig(group=group, overlap=overlap),
    )


def _wells(counts: list[tuple[int, int]]) -> list[Stack]:
    return [
        Stack(
            Path(f"s5_b{w}_p{p}_{label}.tif"),
            label,
            "infected" if label else "uninfected",
            str(p),
            5,
            f"b{w}",
            "P",
        )
        for w, (n, label) in enumerate(counts)
        for p in range(n)
    ]


well_counts = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=9)


@given(well_counts, st.integers(0, 9), st.sampled_from(["stack", "position", "well"]))
def test_sides_are_disjoint_complete_and_keep_groups_whole(counts, seed, group):
    stacks = _wells(counts)
    split = stratified_split(stacks, RATIOS, seed, group=group)
    found = [stack for side in SIDES for stack in split[side]]
    assert sorted(map(str, found)) == sorted(map(str, stacks))
    assert len(set(found)) == len(found)
    check_disjoint(split)
    check_undivided(split, group)


@given(well_counts, st.integers(2, 5), st.integers(0, 9), st.sampled_from(["stack", "well"]))
@settings(max_examples=60)
def test_rotating_folds_test_every_stack_once(counts, k, seed, group):
    stacks = _wells(counts)
    if len(units_of(stacks, group)) < k:
        with pytest.raises(SplitError, match=f"{k} rotating folds need at least {k} groups"):
            kfold_split(stacks, RATIOS, seed, k, 0, group=group)
        return
    folds = [kfold_split(stacks, RATIOS, seed, k, i, group=group) for i in range(k)]
    tested = [stack for fold in folds for stack in fold.test]
    assert sorted(map(str, tested)) == sorted(map(str, stacks))
    for fold in folds:
        assert fold.test
        assert len(fold.train) + len(fold.val) + len(fold.test) == len(stacks)
        check_disjoint(fold)
        check_undivided(fold, group)
    assert folds == [kfold_split(stacks, RATIOS, seed, k, i, group=group) for i in range(k)]


def test_rotating_folds_are_stratified_and_follow_the_seed(make_stacks):
    stacks = make_stacks({("b2", 1): 36, ("c4", 0): 36})
    folds = [kfold_split(stacks, (0.7, 0.1, 0.2), 123, 5, i) for i in range(5)]
    for fold in folds:
        assert {label: sum(s.label == label for s in fold.test) for label in (0, 1)}.keys() == {0, 1}
        assert all(7 <= sum(s.label == label for s in fold.test) <= 8 for label in (0, 1))
        assert all(sum(s.label == label for s in fold.val) in (3, 4) for label in (0, 1))
    assert sorted(len(fold.test) for fold in folds) == [14, 14, 14, 15, 15]
    assert kfold_split(stacks, (0.7, 0.1, 0.2), 124, 5, 0) != folds[0]


@pytest.mark.parametrize(("folds", "index"), [(5, 5), (5, -1), (3, None)])
def test_fold_index_out_of_range(make_stacks, folds, index):
    with pytest.raises(SplitError, match=f"not in 0 … {folds - 1}"):
        kfold_split(make_stacks({("b2", 1): 9, ("c4", 0): 9}), RATIOS, 1, folds, index)


def test_too_few_stacks_is_an_error_before_training(make_stacks):
    stacks = make_stacks({("b2", 1): 9, ("c4", 0): 9})
    with pytest.raises(
        SplitError, match=r"val side has no stack; there are 9 of label 0, 9 of label 1.*at least 10"
    ):
        make_split(stacks, _config(ratios=(0.7, 0.1, 0.2)))
    assert make_split(stacks, _config(ratios=(0.6, 0.2, 0.2))).val
    with pytest.raises(SplitError, match="train side has no stack of label 0"):
        make_split(make_stacks({("b2", 1): 100, ("c4", 0): 3}), _config(ratios=(0.29, 0.3, 0.41)))
    with pytest.raises(SplitError, match="5 folds need 5"):
        make_split(make_stacks({("b2", 1): 9, ("c4", 0): 5}), _config(5, "fixed"), fold_index=0)


def test_one_stack_on_two_sides_is_named(make_stacks, tmp_path):
    a, b, c = make_stacks({("b2", 1): 3})
    with pytest.raises(SplitError, match=r"p1_.*\(test\) is the same stack as .*p1_.*\(train\)"):
        check_disjoint(Split([a, b], [c], [replace(a, path=Path("elsewhere/..") / a.path)]))
    files = [tmp_path / name for name in ("one.tif", "two.tif", "three.tif", "link.tif")]
    for path, content in zip(files, (b"same", b"same", b"else", b""), strict=True):
        path.write_bytes(content)
    one, two, three, link = (replace(a, path=path) for path in files)
    check_disjoint(Split([one], [two], [three]))
    with pytest.raises(SplitError, match=r"two.tif \(val\) is a copy of .*one.tif \(train\)"):
        check_disjoint(Split([one], [two], [three]), by_content=True)
    files[3].unlink()
    files[3].symlink_to(files[0])
    with pytest.raises(SplitError, match="same stack"):
        check_disjoint(Split([one], [link], [three]))
    files[3].unlink()
    files[3].hardlink_to(files[0])
    with pytest.raises(SplitError, match="same stack"):
        check_disjoint(Split([one], [link], [three]))


def test_divided_groups_are_named(make_stacks):
    a, b = make_stacks({("b2", 1): 2})
    with pytest.raises(SplitError, match="well b2 is divided between train and test"):
        check_undivided(Split([a], [], [b]), "well")
    with pytest.raises(SplitError, match="overlap but are divided"):
        check_undivided(Split([a], [], [b]), "stack", [(a, b)])


def test_groups_of_plates_and_links(make_stacks):
    stacks = [
        s for k in range(3) for s in make_stacks({("b2", 1): 2, ("c4", 0): 2}, plate=f"P{k}", run=f"r{k}")
    ]
    for group in ("plate", "run", "well"):
        split = make_split(stacks, _config(group=group))
        check_undivided(split, group)
        assert all({s.label for s in split[side]} == {0, 1} for side in SIDES)
    chain = list(pairwise(stacks))[:3]
    assert len(units_of(stacks, "stack", chain)) == len(stacks) - 3
    split = make_split(stacks, _config(), linked=chain)
    assert len({side for side in SIDES for s in split[side] if s in stacks[:4]}) == 1


def test_overlapping_neighbours_follow_the_setting(make_stacks, monkeypatch):
    stacks = make_stacks({("b2", 1): 10, ("c4", 0): 10})
    monkeypatch.setattr(
        module,
        "_overlaps",
        lambda stacks, config, cache_dir: list(zip(stacks[:-1:2], stacks[1::2], strict=True)),
    )
    split = make_split(stacks, _config(overlap="warn"))
    assert any("overlapping neighbours are divided" in text for text in split.warnings)
    split = make_split(stacks, _config(overlap="group"))
    assert not any("overlapping" in text for text in split.warnings)
    side = {s.path: name for name in SIDES for s in split[name]}
    assert all(side[a.path] == side[b.path] for a, b in zip(stacks[:-1:2], stacks[1::2], strict=True))


def test_manifest_splits_are_honoured(make_stacks):
    stacks = [
        replace(s, split=SIDES[min(k % 5, 2)])
        for k, s in enumerate(make_stacks({("b2", 1): 10, ("c4", 0): 10}))
    ]
    split = make_split(stacks, _config())
    assert all(stack.split == side for side in SIDES for stack in split[side])
    fold = make_split(stacks, _config(3, "fixed"), fold_index=1)
    assert fold.test == split.test
    assert {s.path for s in fold.train + fold.val} == {s.path for s in split.train + split.val}
    with pytest.raises(SplitError, match="cannot rotate"):
        make_split(stacks, _config(3, "rotating"), fold_index=1)
    with pytest.raises(SplitError, match="19 of 20 stacks have a split"):
        make_split([replace(stacks[0], split=None), *stacks[1:]], _config())


def test_faithful_folds_keep_the_test_side(make_stacks):
    stacks = make_stacks({("b2", 1): 36, ("c4", 0): 36})
    faithful = _config(5, ratios=(0.7, 0.1, 0.2)).model_copy(update={"faithful": True})
    tests = [make_split(stacks, faithful, fold_index=i).test for i in range(5)]
    assert all(test == tests[0] for test in tests)
    rotating = [make_split(stacks, _config(5), fold_index=i).test for i in range(5)]
    assert len({s.path for test in rotating for s in test}) == 72
    assert make_split(stacks, _config(5)) == make_split(stacks, _config(1))


def test_sides_and_summary(make_stacks):
    split = make_split(make_stacks({("b2", 1): 10, ("c4", 0): 10}), _config())
    assert split.summary().startswith("train 12 stacks (label 0: 6, label 1: 6) | val 4 stacks")
    with pytest.raises(KeyError, match="train, val, test"):
        split["dev"]
    assert any("Train and test share wells (b2, c4)" in text for text in split.warnings)
    check_usable(split)


def test_confounding(make_stacks):
    one_well = confounding(make_stacks({("b2", 1): 3, ("c4", 0): 3}))
    assert len(one_well) == 1
    assert one_well[0].startswith(
        "LABEL AND WELL ARE FULLY CONFOUNDED: label 0 only in well c4; label 1 only in well b2"
    )
    many = confounding(make_stacks({("b2", 1): 2, ("b3", 1): 2, ("c4", 0): 2, ("c5", 0): 2}))
    assert len(many) == 1
    assert many[0].startswith("Every well holds one class only")
    mixed = make_stacks({("b2", 1): 2}) + make_stacks({("b2", 0): 2, ("c4", 0): 2})
    assert "All stacks of label 1 come from one well (b2)" in confounding(mixed)[0]
    crossed = make_stacks({("b2", 1): 2, ("b2", 0): 2, ("c4", 1): 2, ("c4", 0): 2})
    assert confounding(crossed) == []
    plates = make_stacks({("b2", 1): 2, ("b3", 1): 2}, plate="P1") + make_stacks(
        {("b2", 0): 2, ("b3", 0): 2}, plate="P2"
    )
    assert any("LABEL AND PLATE ARE FULLY CONFOUNDED" in text for text in confounding(plates))
    assert confounding(make_stacks({("b2", 1): 3})) == []
    nameless = [replace(s, well=None) for s in make_stacks({("b2", 1): 3, ("c4", 0): 3})]
    assert "cannot be checked" in confounding(nameless)[0]
