"""Weights of SAM and MedSAM load completely and give SAM's results; wrong files are named."""

from __future__ import annotations

import pytest
import torch

from aespa.errors import CheckpointError
from aespa.models.architecture import Architecture
from aespa.models.build import build_network, empty_network
from aespa.models.checkpoint import save_network
from aespa.models.sam_weights import load_sam_weights, renamed_key


@pytest.fixture(scope="module")
def medsam_file(tmp_path_factory, golden_tensors, golden_json):
    state = golden_tensors(golden_json("state_dict_medsam_vit_b"), 1)
    state["image_encoder.pos_embed"] *= 1000
    path = tmp_path_factory.mktemp("sam") / "medsam_vit_b.pth"
    torch.save(state, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def loaded(medsam_file):
    network = empty_network(Architecture(image_size=128, block="sam", n_components=4)).eval()
    for parameter in (*network.EM_weights.parameters(), *network.image_encoder.fcomb.parameters()):
        torch.nn.init.constant_(parameter, 0.25)
    return network, load_sam_weights(network, medsam_file)


@torch.no_grad()
def test_golden_results_of_sam(loaded, golden_npz):
    network, _ = loaded
    golden = {name: torch.from_numpy(value) for name, value in golden_npz("medsam_load").items()}
    neck = network.encode(golden["x_uint8"].float() / 255)
    torch.testing.assert_close(neck[:, ::4], golden["neck"], rtol=0, atol=1e-4)
    torch.testing.assert_close(neck.norm(), golden["neck_l2"], rtol=1e-5, atol=1e-4)
    prompts = network.prompts(golden["points_xy"], golden["point_labels"], None)
    torch.testing.assert_close(prompts.sparse, golden["sparse"], rtol=0, atol=1e-4)
    places = network.prompt_encoder.dense_positions()
    for multimask, name in ((True, "masks_multi"), (False, "masks_single")):
        masks, quality = network.mask_decoder(neck, places, prompts.sparse, prompts.dense, multimask)
        torch.testing.assert_close(masks, golden[name], rtol=0, atol=1e-4)
        if multimask:
            torch.testing.assert_close(quality, golden["iou_multi"], rtol=0, atol=1e-4)
    plain = network.decode(neck, None, prompts)
    torch.testing.assert_close(plain[0], golden["masks_single"], rtol=0, atol=1e-4)


def test_the_report_counts_every_tensor(loaded, golden_json):
    network, report = loaded
    assert len(report.loaded) == 314
    assert len(report.renamed) == 32
    assert len(report.resized) == 8
    assert {shape for _, shape, _ in report.resized} == {(127, 64)}
    assert {shape for _, _, shape in report.resized} == {(15, 64)}
    assert sorted([*report.loaded, *report.missing]) == sorted(network.state_dict())
    lines = report.lines()
    assert lines[0] == "314 of 314 tensors loaded"
    assert "32 of them renamed, such as image_encoder.blocks.0.attn.rel_pos_h → " in lines[1]
    assert (
        "8 of them resized, such as image_encoder.blocks.2.attn.rel_h from [127, 64] to [15, 64]" in lines[2]
    )
    assert lines[3] == (
        "34 tensors are new and start at random: EM_mean_variance, EM_weights, image_encoder.fcomb"
    )
    assert float(network.EM_weights.fc1.weight.detach().std()) == 0  # what SAM lacks is left as it was


def test_golden_key_map(golden_json):
    for key, about in golden_json("medsam_key_map").items():
        assert renamed_key(key) == about["aespa_key"]


def test_partial_loading_drops_what_the_original_dropped(medsam_file, golden_json):
    network = empty_network(Architecture.original(128))
    before = network.image_encoder.blocks[2].attn.rel_h.detach().fill_(3).clone()
    report = load_sam_weights(network, medsam_file, mode="partial")
    key_map = golden_json("medsam_key_map")
    assert set(report.loaded) == {key for key, about in key_map.items() if about["loaded_by_original"]}
    assert set(report.dropped) == {key for key, about in key_map.items() if not about["loaded_by_original"]}
    assert report.lines()[0] == "282 of 314 tensors loaded"
    assert "32 tensors left out (partial): image_encoder.blocks.0.attn.rel_pos_h" in report.lines()[-1]
    assert torch.equal(network.image_encoder.blocks[2].attn.rel_h, before)


@pytest.fixture(scope="module")
def tiny():
    return build_network(Architecture(encoder="tiny", image_size=64))


def _sam_of(network):
    """A file of SAM for the tiny encoder, with tables as long as those of 1024 pixels."""
    state = {}
    for key, value in network.state_dict().items():
        if not key.startswith(("image_encoder.fcomb.", "EM_")):
            key = key.replace(".rel_", ".rel_pos_").replace(".mlp.layers.0.0.", ".mlp.lin1.")
            state[key.replace(".mlp.fc.", ".mlp.lin2.")] = value.clone()
    state["pixel_mean"] = torch.zeros(3, 1, 1)
    return state


def test_a_network_loads_its_own_weights_under_sams_names(tiny, tmp_path, fill_golden_weights):
    source = fill_golden_weights(build_network(tiny.architecture), 4)
    torch.save({"model": {f"module.{k}": v for k, v in _sam_of(source).items()}}, tmp_path / "sam.pth")
    target = build_network(tiny.architecture)
    report = load_sam_weights(target, tmp_path / "sam.pth")
    assert len(report.dropped) == len(report.resized) == 0
    own, theirs = target.state_dict(), source.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in report.loaded)
    assert set(own) - set(report.loaded) == set(report.missing)


def _missing(state):
    del state["mask_decoder.iou_token.weight"]


def _left_over(state):
    state["image_encoder.blocks.7.norm1.bias"] = torch.zeros(768)


def _shape(state):
    state["image_encoder.neck.0.weight"] = torch.zeros(128, 128, 1, 1)


def _no_sam(state):
    state.clear()
    state["layer1.weight"] = torch.zeros(2)


def _larger(state):
    state["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 1280)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing, r"1 tensors are missing \(mask_decoder.iou_token.weight\).*medsam_vit_b.pth"),
        (_left_over, r"1 are left over \(image_encoder.blocks.7.norm1.bias\)"),
        (_shape, r"image_encoder.neck.0.weight is \[128, 128, 1, 1\], expected \[256, 128, 1, 1\]"),
        (_no_sam, r"no image_encoder.pos_embed among layer1.weight; give the file of SAM or MedSAM"),
        (_larger, r"weights of encoder vit_h, but the network is tiny: set encoder: vit_h"),
    ],
)
def test_a_wrong_file_is_named_and_changes_nothing(spoil, message, tiny, tmp_path):
    state = _sam_of(tiny)
    spoil(state)
    torch.save(state, tmp_path / "wrong.pth")
    before = {key: value.clone() for key, value in tiny.state_dict().items()}
    with pytest.raises(CheckpointError, match=rf"wrong\.pth: .*{message}"):
        load_sam_weights(tiny, tmp_path / "wrong.pth")
    assert all(torch.equal(value, before[key]) for key, value in tiny.state_dict().items())


def test_missing_and_truncated_files_are_named(tiny, tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such checkpoint; .*medsam_vit_b\.pth"):
        load_sam_weights(tiny, tmp_path / "none.pth")
    torch.save(_sam_of(tiny), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"cut\.pth: the checkpoint is cut off after 100,000 bytes"):
        load_sam_weights(tiny, tmp_path / "cut.pth")


def test_a_checkpoint_of_this_package_is_no_file_of_sam(tiny, tmp_path):
    save_network(tmp_path / "ours.pth", tiny)
    with pytest.raises(CheckpointError, match=r"a checkpoint of this package.*-pretrain or -weights"):
        load_sam_weights(tiny, tmp_path / "ours.pth")
