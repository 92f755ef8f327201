import pytest

from splitrun.errors import DuplicateNameError, UnknownNameError
from splitrun.registry import Registry


@pytest.fixture
def fruit():
    registry = Registry("fruit", next_step="See: fruit list")
    registry.register("apple", 1, aliases=("pomme", "apfel"))
    registry.register("apricot", 2)
    return registry


def test_an_entry_is_found_under_its_name_and_each_alias(fruit):
    assert [fruit.get(name) for name in ("apple", "pomme", "apfel", "apricot")] == [1, 1, 1, 2]


def test_names_and_entries_come_in_order_of_registration_without_aliases(fruit):
    assert fruit.names() == ["apple", "apricot"]
    assert list(fruit) == [1, 2]


def test_names_and_aliases_are_contained(fruit):
    assert [name in fruit for name in ("apple", "pomme", "pear", None)] == [
        True,
        True,
        False,
        False,
    ]


def test_register_returns_the_entry(fruit):
    assert fruit.register("pear", 3) == 3


def test_an_unknown_name_is_answered_with_the_closest_ones_best_first(fruit):
    with pytest.raises(UnknownNameError) as caught:
        fruit.get("appel")
    assert (caught.value.kind, caught.value.name) == ("fruit", "appel")
    assert caught.value.matches == ("apple", "apfel")
    assert str(caught.value) == (
        "No fruit is named 'appel'.\nDid you mean apple or apfel? See: fruit list"
    )


def test_at_most_three_close_names_are_given():
    registry = Registry("word")
    for number in range(5):
        registry.register(f"word{number}", number)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("word")
    assert len(caught.value.matches) == 3


def test_a_name_close_to_nothing_is_answered_with_all_names_where_they_are_few(fruit):
    with pytest.raises(UnknownNameError) as caught:
        fruit.get("xyz")
    assert caught.value.matches == ("apple", "apricot")


def test_a_name_close_to_nothing_is_answered_with_the_next_step_alone_where_names_are_many():
    registry = Registry("word", next_step="See: words")
    for number in range(6):
        registry.register(f"word{number}", number)
    with pytest.raises(UnknownNameError) as caught:
        registry.get("xyz")
    assert caught.value.matches == ()
    assert str(caught.value) == "No word is named 'xyz'.\nSee: words"


@pytest.mark.parametrize(
    ("name", "aliases"),
    [("apple", ()), ("pomme", ()), ("pear", ("apple",)), ("pear", ("new", "pomme"))],
    ids=["name as name", "alias as name", "name as alias", "alias as alias"],
)
def test_a_taken_name_is_refused_and_nothing_is_registered(fruit, name, aliases):
    with pytest.raises(DuplicateNameError, match="is registered already"):
        fruit.register(name, 9, aliases=aliases)
    assert fruit.names() == ["apple", "apricot"]
    assert [fruit.get("apple"), fruit.get("pomme")] == [1, 1]
    assert "pear" not in fruit
    assert "new" not in fruit
