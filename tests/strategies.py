"""What hypothesis draws from in several files."""

import numpy as np
from hypothesis import strategies as st

from splitzoo.zoo.coding import FactorizedTables

INT32 = np.iinfo(np.int32)
INT32_RANGE = st.integers(INT32.min, INT32.max)


@st.composite
def any_tables(draw):
    precision = draw(st.integers(1, 16))
    top = 1 << precision
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        slots = draw(st.integers(2, min(top, 40)))
        cuts = st.lists(
            st.sampled_from(range(1, top)), unique=True, min_size=slots - 1, max_size=slots - 1
        )
        rows.append([0, *sorted(draw(cuts)), top])
    length = [len(row) for row in rows]
    # Padding is anything: nobody may look at it.
    width = max(length) + draw(st.integers(0, 2))
    padding = draw(INT32_RANGE)
    offset = [
        draw(st.integers(-50, 50) | st.integers(INT32.min, INT32.max - n) | st.just(INT32.max - n))
        for n in length
    ]
    return FactorizedTables(
        cdf=np.array([row + [padding] * (width - len(row)) for row in rows], np.int32),
        length=np.array(length, np.int32),
        offset=np.array(offset, np.int32),
        precision=precision,
    )
