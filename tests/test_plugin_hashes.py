"""The shipped plug-ins' hashes. A change of one makes every stored cell of that plug-in stale."""

import pytest

from codingbench.registry import BACKBONES, ENCODERS, Registry

ENCODER_CODES = {
    "bitplane": "24deb0bd376f",
    "burst": "a28319fb1d88",
    "delta": "97e24966a73d",
    "direct": "43b02a50fc1f",
    "dta": "3c5c39190c69",
    "gac": "9f5147ffdad2",
    "gac_control": "3bd265f245f2",
    "integer": "698c741462e1",
    "latency": "7096ce9a70d3",
    "learned_phase": "f48a63a39779",
    "learned_time": "ae478a0cbb1e",
    "lowpass": "8760c78e0f61",
    "onoff": "6e9c56fd2f4c",
    "phase": "f3a9cd96f961",
    "population": "790abe10ccfb",
    "published_step": "80ccdb541978",
    "rate": "ef121f07bc60",
    "sigma_delta": "6f2c3d857ed2",
    "signed_rate": "7a39fd0eeac1",
    "ternary": "641da15e78af",
}
BACKBONE_CODES = {
    "csnn": "c7ca4217883a",
    "max_resnet18": "b17367168f7c",
    "ms_resnet18": "f9de2dd3c3a9",
    "ms_resnet34": "5421358a3900",
    "ms_resnet9": "749c631a6f7e",
    "sew_resnet18": "6bbfbb71dfc9",
    "spikformer": "ce5a9288b3da",
    "vgg9": "a2c08c180ad5",
}


@pytest.mark.parametrize(
    ("registry", "codes"),
    [(ENCODERS, ENCODER_CODES), (BACKBONES, BACKBONE_CODES)],
    ids=["encoders", "backbones"],
)
def test_the_hashes_of_the_shipped_plugins_are_those_of_the_stored_cells(
    registry: Registry, codes: dict[str, str]
) -> None:
    assert {name: registry.resolve(name).code for name in registry.shipped()} == codes
