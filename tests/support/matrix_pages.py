"""Pages of ``benchmarks.matrix``: the model that tests measure, and the tables that they read."""

TINY = ("splittable_test_resnet-fp",)


def table_of(text: str) -> list[list[str]]:
    """Return the cells of every row of the tables in a page of Markdown."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
