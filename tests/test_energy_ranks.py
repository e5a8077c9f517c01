import io
import json
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import rows
from codingbench.energy import COMPARED, Pricing
from codingbench.schema import COUNTS
from codingbench.views.energies import every_convention
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json, to_svg


def cell(encoder: str, seed: int, accuracy: float, **values: Any) -> dict[str, Any]:
    coordinates = {
        "dataset": "digits",
        "backbone": "vgg5",
        "neuron": "default",
        "num_steps": 4,
        "recipe": "quick",
        "epochs": 20,
        "batch_size": 64,
        "micro_batch": 64,
        "train_samples": 1437,
        "test_samples": 360,
        "precision": "fp32",
    }
    codes = ("encoder_code", "backbone_code", "neuron_code", "recipe_hash", "dataset_fingerprint")
    facts = {
        "key": f"{encoder}-{seed}-{values.get('backbone', '')}",
        "encoder": encoder,
        "seed": seed,
        "accuracy": accuracy,
        "selected_accuracy": accuracy,
        "evaluated_weights": "last",
        "num_classes": 10,
        "images": 100,
        "parameters": 1000,
        "code_channels": 1,
        "firing_rate": 0.125,
        "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
    }
    return coordinates | facts | dict.fromkeys(COUNTS, 0) | dict.fromkeys(codes, "1") | values


# Per image: gac 1e6 real operations, of which the papers' formula sees nothing but 1e6 AC;
# direct and rate 2e6 and 3e6 AC in both.
CELLS = [
    cell("gac", 0, 0.9, effective_real=10**8, dense_real=10**8, paper_acs=1e8),
    cell("direct", 0, 0.8, effective_binary=2 * 10**8, paper_acs=2e8),
    cell("rate", 0, 0.7, effective_binary=3 * 10**8, paper_acs=3e8),
]


def ranked(*cells: dict[str, Any], sort: str = "accuracy", technology: str = "fp32") -> Any:
    frame = pd.DataFrame(list(cells))
    pricing = Pricing.of(technology=technology)
    return with_every_convention(rows(frame, pricing, sort=sort), frame, pricing.technology)


def printed(table: pd.DataFrame, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(every_convention(table)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_each_convention_has_its_energy_and_its_rank() -> None:
    table = ranked(*CELLS)
    assert table["encoder"].tolist() == ["gac", "direct", "rate"]
    assert table["energy_exact_uj"].tolist() == pytest.approx([4.6, 1.8, 2.7])
    assert table["energy_rank_exact"].tolist() == [3, 1, 2]
    assert table["energy_paper_uj"].tolist() == pytest.approx([0.9, 1.8, 2.7])
    assert table["energy_rank_paper"].tolist() == [1, 2, 3]
    assert table["energy_dense_mac_uj"].tolist() == pytest.approx([4.6, 1.8, 2.7])
    # The one energy would be a second name for energy_exact_uj.
    assert not {"energy_uj", "energy_convention"} & set(table)


def test_energies_are_means_over_seeds_on_the_requested_technology() -> None:
    table = ranked(CELLS[0], cell("gac", 1, 0.9, effective_real=3 * 10**8), technology="int8")
    assert table["energy_exact_uj"].tolist() == pytest.approx([0.46])  # 0.23 pJ x 2e6
    assert table["technology"].tolist() == ["45nm-int8"]


def test_a_rank_that_flips_is_marked_and_counted() -> None:
    # gac and direct change places; rate costs most by every convention that counts it
    costly = dict.fromkeys(COUNTS, 10**9)
    table = ranked(*CELLS[:2], cell("rate", 0, 0.7, **costly))
    assert table["energy_rank_flips"].tolist() == [True, True, False]
    lines = printed(table, 100).splitlines()
    marks = {line.split()[0]: "≠" in line for line in lines if line[:4] in ("gac ", "dire", "rate")}
    assert marks == {"gac": True, "direct": True, "rate": False}
    assert "≠ The energy rank depends on the convention for 2 of 3 rows." in lines


def test_without_a_flip_there_is_neither_mark_nor_note() -> None:
    table = ranked(CELLS[0])
    assert not table["energy_rank_flips"].any()
    assert "depends on the convention" not in printed(table, 100) and "gac      " in printed(
        table, 100
    )


def test_equal_energies_share_a_rank_and_groups_are_ranked_separately() -> None:
    twin = cell("twin", 0, 0.6, effective_binary=2 * 10**8, paper_acs=2e8)
    elsewhere = cell("rate", 0, 0.7, effective_binary=10**9, backbone="resnet18")
    table = ranked(*CELLS, twin, elsewhere)
    ranks = table.set_index(["backbone", "encoder"])["energy_rank_exact"].to_dict()
    assert ranks == {
        ("resnet18", "rate"): 1,
        ("vgg5", "direct"): 1,
        ("vgg5", "twin"): 1,
        ("vgg5", "rate"): 3,
        ("vgg5", "gac"): 4,
    }


def test_sorted_by_energy_the_order_is_that_of_exact() -> None:
    assert ranked(*CELLS, sort="energy")["encoder"].tolist() == ["direct", "rate", "gac"]


@pytest.mark.parametrize(("width", "label"), [(80, "gac"), (100, "latency[scale=log,top=0.05]")])
def test_six_conventions_fit_a_terminal_without_cutting_a_name(width: int, label: str) -> None:
    # memory: (0.9 + 2 x 99.84) pJ x 1e7 membrane updates per image = 2005.8 uJ
    cells = [cell(label, seed, 0.8 + 0.01 * seed, neuron_updates=10**9) for seed in (0, 1)]
    text = printed(ranked(*cells, *CELLS[1:]), width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    above, below = (
        line for line in text.splitlines() if line.split()[-1:] in (["syops-"], ["memory"])
    )
    assert above.split() == ["dense-", "syops-"]
    assert below.split()[-6:] == ["exact", "mac", "paper", "neurobench", "like", "memory"]
    first, *others = text.split("─\n")[1].splitlines()
    folded = [first.split()[0], *(line.strip() for line in others if line.endswith(" " * 60))]
    assert "".join(folded) == label
    assert "80.50 ±" in first and first.endswith("2,006 #3")


def test_every_format_has_every_convention() -> None:
    table = ranked(*CELLS)
    view = every_convention(table)
    first = json.loads(to_json(table))[0]
    assert first["energy_neurobench_uj"] == pytest.approx(4.6)
    # 4.6 pJ x 1e6 and the reading of 1e6 weights at 99.84 pJ; direct reads 2e6
    assert first["energy_memory_uj"] == pytest.approx(104.44)
    assert first["energy_rank_memory"] == 1 and isinstance(first["energy_rank_memory"], int)
    assert first["energy_rank_flips"] is True
    header = to_csv(table).splitlines()[0]
    assert header.endswith(",energy_memory_uj,energy_rank_memory,energy_rank_flips")
    markdown = to_markdown(view)
    assert "| gac | ≠ | 4 | 1† | 90 | 4.60 #3 | 4.60 #3 | 0.900 #1 |" in markdown
    assert all(f"- {name}: " in markdown for name in COMPARED)
    assert "24.96 pJ per byte" in markdown
    assert "0.900&#160;#1" in to_svg(view)


def test_a_row_with_unknown_counts_has_no_rank_but_the_other_rows_do() -> None:
    cells = pd.DataFrame([cell("direct", 0, 0.9), cell("rate", 0, 0.8, effective_real=None)])
    wide = with_every_convention(rows(cells), cells)
    assert wide["energy_rank_exact"].isna().tolist() == [False, True]
    assert wide["energy_rank_exact"][0] == 1
    assert "—" in to_markdown(every_convention(wide))
