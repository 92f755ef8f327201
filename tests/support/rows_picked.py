"""Which rows of their tables an encoder and a decoder pick."""

import numpy as np

from splitrun.coding.ans import ConditionalModels, Stack


def rows_picked(monkeypatch, models, symbols):
    """Code symbols and read them back: the rows of every step, which are the same on both sides."""
    written, read = [], []
    push, pop = ConditionalModels.push, ConditionalModels.pop

    def watched_push(self, stack, symbols, indexes):
        written.append(indexes)
        push(self, stack, symbols, indexes)

    def watched_pop(self, stack, indexes):
        read.append(indexes)
        return pop(self, stack, indexes)

    monkeypatch.setattr(ConditionalModels, "push", watched_push)
    monkeypatch.setattr(ConditionalModels, "pop", watched_pop)
    stack = Stack()
    models.push(stack, symbols)
    np.testing.assert_array_equal(models.pop(Stack(stack.payload()), symbols.shape), symbols)
    assert len(written) == len(read)
    for one, other in zip(reversed(written), read, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    return read
