from typer.testing import CliRunner

from codingbench.cli.main import app


def test_brackets_of_an_example_are_no_markup() -> None:
    text = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["run", "--help"]).stdout
    assert 'Example: codingbench run --encoders "gac,latency[scale=log]"' in text
    assert "name[param=a|b]" in text
