"""A static site of models: a table that sorts and filters, plots that turn, a page for each."""
