"""The shipped plug-ins' hashes. A change of one makes every stored cell of that plug-in stale."""

import pytest

from codingbench.registry import BACKBONES, ENCODERS, Registry

ENCODER_CODES = {
    "bitplane": "77e76b473995",
    "burst": "a28319fb1d88",
    "delta": "a304ec26d084",
    "direct": "43b02a50fc1f",
    "dta": "1eea2546a544",
    "gac": "9f5147ffdad2",
    "gac_control": "3bd265f245f2",
    "integer": "6b5cef68b5db",
    "latency": "7096ce9a70d3",
    "learned_phase": "43a416c9c55f",
    "learned_time": "ae478a0cbb1e",
    "lowpass": "e57e68ce40d7",
    "onoff": "a0fbf55379bd",
    "phase": "f3a9cd96f961",
    "population": "452deeea9ed2",
    "published_step": "80ccdb541978",
    "rate": "ef121f07bc60",
    "sigma_delta": "df3f5f4cdc3d",
    "signed_rate": "7a39fd0eeac1",
    "ternary": "0628b2530c1e",
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
