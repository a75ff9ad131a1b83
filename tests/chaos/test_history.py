"""The judge must be able to say no."""

from history import judge

KEPT = [("a", 1, "1"), ("b", 1, "2"), ("a", 2, "3")]


def test_accepts_a_history_that_kept_every_promise():
    assert judge({"a": 2, "b": 1}, KEPT) == []


def test_finds_a_lost_change():
    assert "lost" in judge({"a": 2, "b": 1}, KEPT[:2])[0]


def test_finds_a_lost_change_in_the_middle():
    assert "versions [2]" in judge({"a": 3}, [("a", 1, "1"), ("a", 3, "3")])[0]


def test_finds_a_key_that_never_arrived():
    assert "lost" in judge({"a": 2, "b": 1, "c": 1}, KEPT)[0]


def test_finds_a_change_that_was_rolled_back():
    assert "never committed" in judge({"a": 1, "b": 1}, KEPT)[0]
    assert "never committed" in judge({"a": 2}, KEPT)[0]


def test_finds_changes_of_one_key_out_of_order():
    assert "out of order" in judge({"a": 2}, [("a", 2, "3"), ("a", 1, "1")])[0]


def test_counts_duplicates_against_what_is_allowed():
    again = KEPT + KEPT[2:]
    assert judge({"a": 2, "b": 1}, again, duplicates_allowed=1) == []
    assert "1 duplicates" in judge({"a": 2, "b": 1}, again, duplicates_allowed=0)[0]


def test_a_repeated_old_change_is_a_duplicate_and_not_disorder():
    assert judge({"a": 2, "b": 1}, KEPT + KEPT[:1], duplicates_allowed=1) == []
