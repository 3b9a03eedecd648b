"""The pyramid against goldens, and cropped against plain branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from til_mtl.errors import TrainingError
from til_mtl.models.aspp import ASPP, ASPP_Bottleneck
from til_mtl.models.cropped_conv import CroppedConv2d

PYRAMIDS = {
    "aspp_bottleneck_mtl": lambda: ASPP_Bottleneck(3, 2),
    "aspp_bottleneck_mtl_small": lambda: ASPP_Bottleneck(3, 2),
    "aspp_bottleneck_stl": lambda: ASPP_Bottleneck(2),
    "aspp_mtl_unused_512": lambda: ASPP(3, 2),
    "aspp_stl_unused_512": lambda: ASPP(4),
}


@pytest.fixture(scope="module")
def golden_pyramid(fill_golden_weights):
    """Filled pyramids; the two cases of the largest share one."""
    built = {}

    def pyramid(case: str):
        name = case.removesuffix("_small")
        if name not in built:
            built[name] = fill_golden_weights(PYRAMIDS[case](), 0).eval().double()
        return built[name]

    return pyramid


@pytest.mark.parametrize("cropped", [True, False])
@pytest.mark.parametrize("case", PYRAMIDS)
def test_golden_pyramids(case, cropped, golden_npz, golden_json, golden_pyramid):
    golden, about = golden_npz("modules"), golden_json("modules")[case]
    module = golden_pyramid(case)
    for part in module.modules():
        if isinstance(part, CroppedConv2d):
            part.cropped = cropped
    x = np.random.RandomState(about["x_seed"]).standard_normal(about["shape"]).astype(np.float32)
    with torch.no_grad():
        out = module(torch.from_numpy(x).double())
    outputs = out if isinstance(out, tuple) else (out,)
    assert [list(each.shape) for each in outputs] == about["outputs"]
    for index, each in enumerate(outputs):
        np.testing.assert_allclose(each.numpy(), golden[f"{case}.y{index}_f64"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [name for name in PYRAMIDS if not name.endswith("_small")])
def test_state_dict_keys(case, golden_json):
    with torch.device("meta"):
        single, kind = "_stl" in case, ASPP if case.endswith("_512") else ASPP_Bottleneck
        state = (kind(3) if single else kind(3, 2)).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == golden_json(f"state_dict_{case}")


def test_a_training_batch_of_one_is_refused_with_the_mend():
    pyramid = ASPP(2, in_channels=4)
    with pytest.raises(TrainingError, match="at least two; merge it with another batch"):
        pyramid(torch.zeros(1, 4, 3, 3))
    assert pyramid.eval()(torch.zeros(1, 4, 3, 3)).shape == (1, 2, 3, 3)
