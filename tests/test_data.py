from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelm import data
from edgelm.errors import DataError

LABELS = ("lights", "music")


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "texts.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_texts_and_classes(tmp_path: Path) -> None:
    path = write(tmp_path, '{"text": "play", "label": "music"}\n\n{"text": "on\u2028off", "label": "lights"}\n')
    read = data.read(path, LABELS)
    assert read.texts == ("play", "on\u2028off")  # lines end with a newline alone
    assert read.gold is not None
    assert read.gold.tolist() == [1, 0]


def test_texts_without_labels_have_no_classes(tmp_path: Path) -> None:
    assert data.read(write(tmp_path, '{"text": "play"}'), LABELS).gold is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"text": "a", "label": "music"}\n{"text": "b", "label": "musik"}',
            ["line 2", "musik", "did you mean 'music'"],
        ),
        ('{"text": "a", "label": 7}', ["line 1", "'7'", "2 labels"]),
        ('{"text": "a", "label": "music"}\n{"text": "b"}', ["line 2", "every line or on none"]),
        ('{"txt": "a"}', ["line 1", "'text'"]),
        ('["a"]', ["line 1", "JSON object", "list"]),
        ("not json", ["line 1", "JSON"]),
        ("", ["empty"]),
        (b"\xff\xfe\x00", ["UTF-8", "offset 0"]),
    ],
)
def test_bad_data_gets_one_line_that_names_the_place(content: str | bytes, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as caught:
        data.read(path, LABELS)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [str(path), *words])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        data.read(tmp_path / "none.jsonl", LABELS)


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("one\n\ntwo words\n", encoding="utf-8")
    assert data.read_texts(path) == ("one", "two words")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 8), st.randoms(use_true_random=False))
def test_batches_hold_every_row_once_and_one_length_each(lengths: list[int], size: int, random: Random) -> None:
    rows = [np.zeros(n, np.int32) for n in lengths]
    order = list(range(len(rows)))
    random.shuffle(order)
    batches = list(data.by_length(rows, size, np.array(order)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(rows)))
    assert all(len(batch) <= size for batch in batches)
    assert all(len({lengths[i] for i in batch}) == 1 for batch in batches)


def test_the_sample_that_ships_has_texts_of_many_lengths() -> None:
    texts = data.sample().texts
    words = [len(text.split()) for text in texts]
    assert len(set(texts)) == len(texts) >= 150
    assert min(words) <= 3
    assert max(words) >= 80
