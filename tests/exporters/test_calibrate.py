from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

from edgelm.errors import DataError
from edgelm.exporters.calibrate import LEAST, TOLERANCE, Range, calibrate
from edgelm.model import Encoder
from edgelm.runtimes import Ids


def texts(count: int) -> list[Ids]:
    """Rows of five lengths."""
    return [tiny.ids(1, 4 + index % 5, seed=index)[0].numpy().astype(np.int32) for index in range(count)]


def spoil(model: Encoder) -> str:
    """Give one layer something to read that no byte can hold, and that does not matter; its name."""
    ffn = model.layers[1].ffn
    assert isinstance(ffn.down, nn.Linear)
    with torch.no_grad():
        ffn.up.bias[0] = 1e5
        ffn.down.weight[:, 0] = 0
    return "layers.1.ffn.down"


def test_ranges_hold_zero_and_lie_within_what_is_read() -> None:
    model, rows = tiny.encoder(), texts(40)
    seen = defaultdict[str, list[Tensor]](list)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].flatten()))
    with torch.no_grad():
        for row in rows:
            model(torch.from_numpy(row[None]), torch.ones(1, len(row)))
    found = calibrate(model, rows).reads
    assert set(found) == set(seen)
    for name, span in found.items():
        values = torch.cat(seen[name]).numpy()
        assert min(0.0, values.min()) - 1e-4 <= span.low <= 0.0 <= span.high <= max(0.0, values.max()) + 1e-4
        assert ((values >= span.low) & (values <= span.high)).mean() > 0.99
        assert 0 <= span.zero_point <= 255
    assert found["layers.0.attention.q"] == found["layers.0.attention.k"] == found["layers.0.attention.v"]


def test_a_range_of_zeros_can_be_divided_by() -> None:
    assert (Range(0.0, 0.0).scale, Range(0.0, 0.0).zero_point) == (1.0, 0)


def test_nothing_stays_in_float_that_need_not() -> None:
    found = calibrate(tiny.encoder(), texts(40))
    assert found.floating == ()
    assert found.notes == ()
    assert 0 < found.error <= TOLERANCE


def test_the_layer_that_cannot_bear_rounding_is_found_and_named() -> None:
    model = tiny.encoder()
    name = spoil(model)
    found = calibrate(model, texts(40))
    assert found.floating == (name,)
    assert found.error <= TOLERANCE < found.error_of_all
    assert len(found.notes) == 1
    assert name in found.notes[0]


def test_leaves_the_model_without_hooks() -> None:
    model = tiny.encoder()
    spoil(model)
    calibrate(model, texts(20))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_too_few_texts_are_refused_however_often_they_are_repeated() -> None:
    few = texts(LEAST - 1)
    with pytest.raises(DataError, match="expected 16 different ones or more, found 15"):
        calibrate(tiny.encoder(), few * 100)
    with pytest.raises(DataError, match=r"found 1$"):
        calibrate(tiny.encoder(), few[:1] * 100)


def test_texts_that_all_mean_the_same_are_refused() -> None:
    model = tiny.encoder()
    with torch.no_grad():
        model.get_parameter("head.classifier.weight").zero_()
        model.get_parameter("head.classifier.bias").zero_()
    with pytest.raises(DataError, match="says the same of all"):
        calibrate(model, texts(20))
