"""A notebook in a real Jupyter kernel: classes of cells as plug-ins, progress, tables as HTML."""

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

pytestmark = [
    pytest.mark.thorough,
    # of the kernel's client, which talks to the kernel over local sockets
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CODING = """
@cb.register_encoder("my_coding")
class MyCoding(cb.FeatureEncoder):
    emits = "real"

    def __init__(self, setting: cb.Setting, *, gain: float = 1.0) -> None:
        super().__init__(setting)
        self.gain = gain

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        return scaled(features, self.gain).expand(self.num_steps, *features.shape)
"""
RUN = """
runs = cb.run(
    encoders=["direct", MyCoding, "my_coding[gain=2]"], backbones="csnn[width=4]", T=2, epochs=1,
    train_samples=200, test_samples=100, results=FOLDER, workers=WORKERS,
)
"""
CELLS = (
    "import torch\nimport codingbench as cb",
    "OFFSET = 0.5\ndef scaled(x, gain):\n    return gain * x + OFFSET",
    CODING,
    RUN.replace("WORKERS", "2"),
    "runs",
    "keys = runs.keys\nprint(len(runs), runs.failed)",
    CODING,  # run again, unchanged
    RUN.replace("WORKERS", "1"),
    "print(runs.keys == keys)",
    CODING.replace("scaled(features, self.gain)", "scaled(features, 2 * self.gain)"),
    RUN.replace("WORKERS", "1"),
    "print(len(runs.keys & keys), len(runs), len(cb.load(FOLDER)))",
    "class Child(MyCoding):\n    OFFSET = 1.0",
    "cb.inspect(Child, 'my_coding[gain=3]', samples=20)['encoder'].tolist()",
    "cb.check(Child)",
    "weights = torch.ones(3)\n"
    "class Stateful(Child):\n"
    "    def encode(self, features):\n"
    "        return weights.sum() * super().encode(features)",
    "try:\n    cb.run(encoders=Stateful, results=FOLDER)\n"
    "except cb.errors.SpecError as error:\n    print(error)",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """The outputs that the kernel put below each cell."""
    from nbclient import NotebookClient

    folder = tmp_path_factory.mktemp("notebook")
    first = f"FOLDER = {str(folder / 'results')!r}"
    cells = [nbformat.v4.new_code_cell(text) for text in (first, *CELLS)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    path = Path(folder)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path)}}).execute()
    return [cell["outputs"] for cell in notebook["cells"]][1:]


def text_of(outputs: list[Any]) -> str:
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs
    )


def test_a_run_shows_its_progress_once_and_warns_of_nothing(outputs: list[list[Any]]) -> None:
    shown = text_of(outputs[3])
    assert shown.count(" done ") == 3 and "my_coding[gain=2.0]" in shown
    assert "Warning" not in shown and "ipywidgets" not in shown


def test_a_result_shows_its_leaderboard(outputs: list[list[Any]]) -> None:
    (shown,) = outputs[4]
    html = shown["data"]["text/html"]
    assert "3 finished cells" in html and html.count("<tr>") == 4
    assert "my_coding[gain=2.0]" in html
    assert text_of(outputs[5]) == "3 0\n"


def test_a_cell_that_is_run_again_gives_the_same_results(outputs: list[list[Any]]) -> None:
    assert text_of(outputs[7]) == "3 cells finished before; force=True runs such cells again\n"
    assert text_of(outputs[8]) == "True\n"


def test_a_changed_class_gives_new_results(outputs: list[list[Any]]) -> None:
    assert text_of(outputs[11]) == "1 3 5\n"  # direct is the same


def test_classes_are_inspected_and_checked(outputs: list[list[Any]]) -> None:
    assert text_of(outputs[13]) == "['Child', 'my_coding[gain=3.0]']"
    (shown,) = outputs[14]
    assert "0 failed" in shown["data"]["text/html"]


def test_an_object_of_the_notebook_is_refused_by_name(outputs: list[list[Any]]) -> None:
    line = "Stateful cannot be kept as a plug-in: it refers to 'weights', an object of type Tensor"
    assert text_of(outputs[16]).startswith(line)
