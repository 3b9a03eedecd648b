"""The original's training module: step values against goldens, and its checkpoints."""

from __future__ import annotations

import pytest
import torch

from til_mtl.original.training import SemSegment

SCRIPTS = {"mtl": "main", "seg": "Seg_main", "det": "det_main"}
ROWS = {"mtl": [0, 1, 2, 3], "seg": [0, 2], "det": [1, 3]}


@pytest.mark.parametrize("task", ["mtl", "seg", "det"])
def test_a_step_logs_what_the_original_logs(task, golden_json, golden_npz, fill_golden_weights):
    wanted, arrays = golden_json("training")["logged"], golden_npz("training")
    module = SemSegment(task, faithful=True)
    fill_golden_weights(module.net, 0)
    module.eval()
    names = ["sdsd"[row] for row in ROWS[task]]
    x, mask = (torch.from_numpy(arrays[key][ROWS[task]]) for key in ("x", "mask"))
    with torch.no_grad():
        loss = module.training_step((x, mask, names) if task == "mtl" else (x, mask))
    expected = wanted[f"{SCRIPTS[task]}.training_step"]
    assert float(loss) == pytest.approx(expected.pop("returned"), rel=1e-5)
    for name in [key for key in expected if key.endswith("froc")]:
        expected.pop(name)  # depends on the order of nearly equal probabilities
    found = {key: module.logged[key] for key in expected}
    assert found == pytest.approx(expected, rel=2e-5)
    if task == "det":
        (optimizer,), (schedule,) = module.configure_optimizers()
        assert optimizer.defaults["weight_decay"] == 0.001
        assert schedule.T_max == 60
        state = module.state_dict()
        assert all(key.startswith("net.") for key in state)
        module.load_state_dict(state)
