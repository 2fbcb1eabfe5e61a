"""Budgets and grids read back as written, whatever they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lasat_ray.config.units import format_budget, format_grid, parse_budget, parse_grid, parse_values

FINITE = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.031", 0.031), ("0", 0.0), ("1", 1.0), (" 2/255 ", 2 / 255), ("1e-3", 0.001)],
)
def test_a_budget_is_what_it_says(text, value):
    assert parse_budget(text) == value


@pytest.mark.parametrize("text", ["", "8/0", "8/", "/255", "eight", "8 255", "8/255/2", "nan", "inf", "0x8"])
def test_what_is_no_budget_is_refused_with_its_spelling(text):
    with pytest.raises(ValueError, match="write it as 8/255"):
        parse_budget(text)


@pytest.mark.parametrize("n", range(1, 256))
def test_multiples_of_a_gray_level_read_back_exactly(n):
    assert parse_budget(format_budget(n / 255)) == n / 255


def test_a_multiple_of_a_gray_level_is_written_as_one():
    assert format_budget(8 / 255) == "8/255"
    assert format_budget(0.031) == "0.031"


@given(FINITE)
def test_any_budget_reads_back_exactly(value):
    assert parse_budget(format_budget(value)) == value


@given(
    st.dictionaries(
        st.sampled_from(["eps", "num_steps", "step_size"]), st.lists(FINITE, min_size=1).map(tuple)
    )
)
def test_any_grid_reads_back_exactly_and_in_order(grid):
    read = parse_grid(format_grid(grid))
    assert read == grid
    assert list(read) == list(grid)


def test_attack_losses_are_written_by_name():
    text = "attack_loss=ce,margin eps=0.1,0.2"
    grid = parse_grid(text)
    assert grid["attack_loss"] == (0.0, 2.0)
    assert format_grid(grid) == text
    with pytest.raises(ValueError, match=r"write some of ce,kl,margin,squared"):
        parse_grid("attack_loss=ce,hinge")


def test_a_range_holds_both_ends():
    assert parse_values("3..5/255") == (3 / 255, 4 / 255, 5 / 255)
    assert parse_values("3..5") == (3.0, 4.0, 5.0)
    assert parse_values("0.1,2..3,8/255") == (0.1, 2.0, 3.0, 8 / 255)


@pytest.mark.parametrize(
    "text", ["eps", "=3", "eps=", "eps=5..3", "eps=3..5/0", "eps=1 eps=2", "eps=0..99999"]
)
def test_what_is_no_grid_is_refused(text):
    with pytest.raises(ValueError, match=r"write|give"):
        parse_grid(text)


def test_a_number_beyond_every_range_can_be_told():
    assert format_budget(1e308) == "1e+308" and format_budget(-1e30) == "-1e+30"
