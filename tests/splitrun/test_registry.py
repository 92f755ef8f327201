import pytest

from splitrun.errors import DuplicateNameError, UnknownNameError
from splitrun.registry import Registry


@pytest.fixture
def fruit():
    registry = Registry("fruit", next_step="See: fruit list")
    registry.register("apple", 1, aliases=("pomme", "apfel"))
    registry.register("apricot", 2)
    return registry


def test_entries_are_found_under_names_and_aliases_and_listed_without(fruit):
    assert [fruit.get(name) for name in ("apple", "pomme", "apfel", "apricot")] == [1, 1, 1, 2]
    assert fruit.register("pear", 3) == 3
    assert fruit.names() == ["apple", "apricot", "pear"]
    assert list(fruit) == [1, 2, 3]
    assert [name in fruit for name in ("apple", "pomme", "plum", None)] == [
        True,
        True,
        False,
        False,
    ]


def test_an_unknown_name_is_answered_with_the_closest_ones_best_first(fruit):
    with pytest.raises(UnknownNameError) as caught:
        fruit.get("appel")
    assert (caught.value.kind, caught.value.name) == ("fruit", "appel")
    assert caught.value.matches == ("apple", "apfel")
    assert str(caught.value) == (
        "No fruit is named 'appel'.\nDid you mean apple or apfel? See: fruit list"
    )


def test_close_names_are_three_at_most_and_all_where_few_are_known(fruit):
    many = Registry("word", next_step="See: words")
    for number in range(6):
        many.register(f"word{number}", number)
    for registry, name, count in ((many, "word", 3), (fruit, "xyz", 2), (many, "xyz", 0)):
        with pytest.raises(UnknownNameError) as caught:
            registry.get(name)
        assert len(caught.value.matches) == count
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
