from __future__ import annotations

import numpy as np

from edgelm.profile.inputs import token_ids


def test_ids_fill_the_whole_vocabulary_and_nothing_is_padding() -> None:
    ids, mask = token_ids(4096, batch=2, vocab=50)
    assert ids.shape == mask.shape == (2, 4096)
    assert ids.dtype == mask.dtype == np.int32
    assert set(np.unique(ids)) == set(range(50))
    assert mask.all()


def test_ids_are_the_same_each_time_and_others_for_another_length() -> None:
    first, _ = token_ids(16, batch=1, vocab=1000)
    again, _ = token_ids(16, batch=1, vocab=1000)
    other, _ = token_ids(32, batch=1, vocab=1000)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other[:, :16])
