"""A site that has one scenario's raw data, and no others, proposes what it would with all of them at hand."""

import pytest

from pfmsmt.core.errors import ConfigError, DataError
from pfmsmt.data.prepare.download import obtain
from pfmsmt.data.prepare.partition import propose_fields
from pfmsmt.data.sources import SOURCES
from pfmsmt.data.sources.base import of_site
from tests.support.raw_files import make_config, quiet, tables, write_raw
from tests.support.raw_tables import config_for, csv_text, rows


def aliexpress(folder, held):
    for scenario in held:
        write_raw(folder, tables(searches=12 + len(scenario)), scenario)
    return make_config(scenarios=("NL", "ES"), aliexpress={"path": str(folder)})


def tenrec(folder, held):
    log = rows()
    for scenario in held:
        # ES has a column under another name, and other rows.
        header = ["category" if (scenario, name) == ("ES", "video_category") else name for name in log[0]]
        (folder / f"{scenario}.csv").write_bytes(csv_text([header, *log[1 + 60 * (scenario == "ES") :]]))
    block = {"scenarios": ("NL", "ES"), "rename": {"ES": {"video_category": "category"}}, "path": str(folder)}
    return config_for("tenrec", tenrec=block)


def tabular(folder, held):
    header, *log = rows()
    names = {"NL": "A", "ES": "B"}
    kept = [row for row in log if row[header.index("app")] in [names[scenario] for scenario in held]]
    (folder / "log.csv").write_bytes(csv_text([header, *kept]))
    return config_for("tabular", tabular={"path": str(folder / "log.csv"), "scenarios": names})


def proposal(config, raw):
    obtain(config, 0, raw, quiet)
    return propose_fields(config, 0, raw, "ES", quiet)


@pytest.mark.parametrize("build", [aliexpress, tenrec, tabular])
def test_one_scenarios_raw_data_will_do(build, tmp_path):
    proposals = {}
    for place, held in (("all", ("NL", "ES")), ("own", ("ES",))):
        (tmp_path / place / "in").mkdir(parents=True)
        config = build(tmp_path / place / "in", held)
        if place == "own":
            with pytest.raises(DataError, match="NL"):
                proposal(config, tmp_path / "raw")
            config = of_site(SOURCES[config.source], config, "ES")
        proposals[place] = proposal(config, tmp_path / place / "raw")
    assert proposals["own"] == proposals["all"]
    assert proposals["own"].moments.rows > 0


@pytest.mark.parametrize("source", ["aliexpress", "tenrec", "synthetic", "movielens"])
def test_a_scenario_that_nobody_declared(source):
    config = make_config(source)
    declared = ", ".join(SOURCES[source].scenarios(config))
    with pytest.raises(ConfigError, match=f"params.yaml has no scenario XX of source {source}: {declared}"):
        of_site(SOURCES[source], config, "XX")
