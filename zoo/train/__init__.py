"""Train split models from recipes. Importing it loads no torch."""
