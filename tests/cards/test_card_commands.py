"""The commands and the Python on a card work."""

import re
import shlex

import pytest
import typer
from huggingface_hub import ModelCard

from splitzoo import cards, cli, zoo


def blocks(card: ModelCard, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", card.text, re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language]


def commands(card: ModelCard) -> list[list[str]]:
    """The splitzoo commands in a card's code blocks, as words."""
    lines = [line.partition("  #")[0] for block in blocks(card, "") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("splitzoo ")]


def parse(words: list[str]) -> None:
    """Parse a command as splitzoo would, without running it."""
    command = typer.main.get_command(cli.app)
    rest = words[1:]
    while rest and (child := getattr(command, "commands", {}).get(rest[0])):
        command, rest = child, rest[1:]
    command.make_context(words[0], rest)


def test_the_commands_on_cards_parse(card, model_report, tiny_bundle) -> None:
    facts = (cards.gather(), cards.gather(bundle=tiny_bundle))
    for one in (card, *map(cards.render, facts)):
        found = commands(one)
        assert ["export", "split"] in [words[1:3] for words in found]
        assert ["export", "run"] in [words[1:3] for words in found]
        for words in found:
            parse(words)


def test_parsing_refuses_a_command_that_is_none() -> None:
    # Otherwise the test above would prove nothing.
    with pytest.raises(Exception, match="No such option"):
        parse(["splitzoo", "export", "split", "--bogus"])


def test_the_runtime_commands_on_the_card_exist(card, tiny_bundle, capsys) -> None:
    from splitrun.cli import main

    found = set(re.findall(r"^python -m splitrun (\w+)", card.text, re.MULTILINE))
    assert found == {"encode", "decode"}
    for command in found:
        with pytest.raises(SystemExit) as stop:
            main(["--bundle", str(tiny_bundle), command, "--help"])
        assert stop.value.code == 0


def test_a_card_of_random_weights_splits_random_weights(model_report) -> None:
    # Without the option, the command ends in WeightsNotFoundError.
    (split,) = [
        words
        for words in commands(cards.render(cards.gather(profile=model_report)))
        if words[1:3] == ["export", "split"]
    ]
    assert "--random-weights" in split
    assert split[split.index("--seed") + 1] == "0"


@pytest.mark.parametrize("name", [None, "splittable_resnet50-fp-beta0.64"])
def test_the_python_on_a_card_loads_a_model(name) -> None:
    card = cards.render(cards.gather(name))
    (block,) = blocks(card, "python")
    compile(block, "card", "exec")
    (loaded,) = re.findall(r'zoo\.load\("([^"]+)"', block)
    assert loaded == (name or zoo.DEFAULT_MODEL)
    assert loaded in zoo.list_models()
