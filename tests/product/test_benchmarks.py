"""The benchmarks run at tiny sizes and print what they promise."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
import yaml
from optuna.trial import TrialState
from scipy.optimize import brentq
from scipy.stats import ttest_1samp

from pfmsmt.config import METHOD_NAMES
from pfmsmt.config.keys import value_at
from pfmsmt.training.privacy import epsilon

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run(benchmark, monkeypatch, capsys, tmp_path, clean_environment):
    """Return a function that runs a script's main in this process, which has loaded what it needs already."""
    monkeypatch.chdir(tmp_path)
    # Compiling in this process: each process that helped would load torch first.
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    threads = torch.get_num_threads()

    def run_here(script, *words):
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{script}.py", *words])
        benchmark(script).main()
        return capsys.readouterr().out

    yield run_here
    torch.set_num_threads(threads)


def run_process(*words):
    """Run a script whose memory is measured: in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow(2)
def test_server_step(run):
    out = run("server_step", "--quick")
    rows = re.findall(r"^(adam|plain) +(\d+) +(\de\+\d+) +(\d+\.\d+) +(\d+\.\d+)$", out, re.MULTILINE)
    assert [row[:3] for row in rows] == [
        (optimizer, clients, parameters)
        for optimizer in ("adam", "plain") for clients in ("2", "4") for parameters in ("1e+03", "1e+04")
    ]  # fmt: skip
    for _, clients, parameters, seconds, nanoseconds in rows:
        assert 0 < float(seconds) < 10
        per_unit = float(seconds) / int(clients) / float(parameters) * 1e9
        assert abs(float(nanoseconds) - per_unit) <= 0.01 + 0.5e-5 / int(clients) / float(parameters) * 1e9
    assert len(re.findall(r"with [PS] at [PS] = \S+ +exponent -?\d+\.\d\d; from each size to the next -?\d", out)) == 8
    share = re.search(r"^share of a round (\d+\.\d\d)%, without validation (\d+\.\d\d)%$", out, re.MULTILINE)
    assert share is not None
    assert 0 < float(share[1]) <= float(share[2]) < 100


def test_server_step_skips_what_does_not_fit(run):
    """0.0007 GiB are 751,619 bytes; a client needs 46.4 bytes a parameter with Adam, 30.4 with plain steps."""
    out = run("server_step", "--quick", "--memory", "0.0007", "--rounds", "0")
    fits = re.findall(r"^(adam|plain) +(\d) +(\de\+\d+) +\d+\.\d+ ", out, re.MULTILINE)
    skipped = re.findall(
        r"^(adam|plain) +(\d) +(\de\+\d+) +skipped: needs \d+\.\d GiB, 0\.0 GiB are free", out, re.MULTILINE
    )
    assert ("plain", "2", "1e+04") in fits
    assert ("plain", "4", "1e+04") in skipped
    assert ("adam", "2", "1e+04") in skipped
    assert ("adam", "4", "1e+03") in fits
    assert len(fits) + len(skipped) == 8
    assert "too few sizes" in out


def test_experts(run):
    out = run("experts", "--only", "default", "--steps", "1", "--turns", "1")
    found = re.search(r"^default +batched +([\d,]+) +list +([\d,]+) +ratio (\d+\.\d\d)", out, re.MULTILINE)
    ours, peer = (int(found[i].replace(",", "")) for i in (1, 2))
    assert float(found[3]) == pytest.approx(ours / peer, abs=0.01)


def test_loading(run):
    out = run("loading", "--rows", "3000", "--steps", "2", "--turns", "1")
    loading = re.search(
        r"^loading +shard to tensors +([\d,]+) +pandas +([\d,]+) +ratio (\d+\.\d\d)$", out, re.MULTILINE
    )
    ours, peer = (int(loading[i].replace(",", "")) for i in (1, 2))
    assert float(loading[3]) == pytest.approx(ours / peer, abs=0.006)
    batches = re.search(
        r"^batches +memory ([\d,]+) +streamed ([\d,]+) +DataLoader ([\d,]+) +model ([\d,]+)$", out, re.M
    )
    *delivered, model = (int(batches[i].replace(",", "")) for i in (1, 2, 3, 4))
    faster = re.search(r"consumes: memory (.+) x, streamed (.+) x, DataLoader (.+) x$", out, re.MULTILINE)
    for rate, times in zip(delivered, faster.groups(), strict=True):
        assert float(times) == pytest.approx(rate / model, rel=0.02, abs=0.06)


@pytest.mark.slow(4)
def test_large_table():
    out = run_process("benchmarks/large_table.py", "--only", "in_place", "--methods", "local", "--table-rows", "3000",
              "--dim", "2", "--rounds", "2")  # fmt: skip
    assert out.startswith("local, in place: built in ")
    found = re.search(r"a round (\d\.\d{3}) s, (\d\.\d{3}) s of it training; .* peak memory (-?\d+) MB above", out)
    assert found is not None
    assert 0 < float(found[2]) < float(found[1])
    assert re.search(r"checkpoint (\d+) MB, written in \d+\.\d\d s; built and read again in \d+\.\d\d s", out)
    assert re.search(r"model written in \d+\.\d s, loaded in \d+\.\d s; peak memory \d+ MB in all$", out, re.MULTILINE)


@pytest.mark.slow(5)
def test_served_forms(run):
    out = run("served_forms", "--rows", "1", "3", "--turns", "2")
    assert re.search(r"^ms for rows +1 +3 +ready after$", out, re.MULTILINE)
    names = ["as it is"] + ["torch.compile"] * any(map(shutil.which, ("g++", "clang++")))
    for name in names:
        assert re.search(rf"^{name} +\d+\.\d{{3}} +\d+\.\d{{3}} +\d+\.\d s$", out, re.MULTILINE)
    assert ("torch.compile is left out" in out) == (len(names) == 1)


@pytest.mark.slow(10)
def test_tuning(run):
    out = run("tuning", "--trials", "11")
    assert re.search(r"^11 trials of 4 rounds, 1 at a time: \d+\.\d s, \d+\.\d s of training$", out, re.MULTILINE)
    found = re.search(r"^overhead per trial: (\d+\.\d{3}) s, all included; -?\d+\.\d{3} s without", out, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > 0
    sizes = re.findall(r"^resident memory, (.+): (\d+) MB after trial 10, (\d+) MB after trial 11 ", out, re.MULTILINE)
    assert [name for name, *_ in sizes] == ["worker", "main process"]
    assert all(int(size) > 50 for _, *both in sizes for size in both)


@pytest.mark.slow(4)
def test_messages(benchmark, run):
    messages = benchmark("messages")
    _, head, *lines = run("messages", "--quick", "--seeds", "0").splitlines()
    assert head.split() == ["CTR", "CTCVR", "std", "KiB", "up", "a", "round", "epsilon"]
    found = {line[:26].rstrip(): line[26:].split() for line in lines}
    assert list(found) == [setting.name for setting in messages.SETTINGS]
    sizes = {name: float(cells[2]) for name, cells in found.items()}
    assert sizes["float16"] == pytest.approx(sizes["as it is"] / 2, rel=0.01)
    assert sizes["local"] < 0.01 * sizes["as it is"]
    # Two rounds of two phases are four uploads.
    told = {name: float(cells[3].replace(",", "")) for name, cells in found.items() if "noise" in name}
    assert told["clip 0.2, noise 1"] == pytest.approx(epsilon(1.0, 4, 1e-5), abs=0.05)
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert {cells[3] for name, cells in found.items() if "noise" not in name} == {"none"}


@pytest.fixture
def quality(run, tmp_path):
    """Return a function that runs the benchmark in folders of its own."""
    places = ("--results", str(tmp_path / "results"), "--work", str(tmp_path / "work"))
    return lambda *words: run("quality", *words, *places, "--quick", "--processes", "1")


@pytest.mark.slow(20)
def test_quality_tunes_runs_and_prints(quality, tmp_path):
    chosen = ("--settings", "default", "--methods", "pf_msmtrec", "local")
    quality("tune", *chosen, "--trials", "2")
    study = yaml.safe_load((tmp_path / "results/tuned/default/local.yaml").read_text())
    assert study["study"]["trials"] == 2
    searched = {"model.dropout", *(f"methods.local.{key}" for key in ("learning_rate", "weight_decay", "ridge"))}
    assert set(study["params"]) == searched
    log = pd.read_csv(tmp_path / "results/tuned/default/local.csv")
    assert list(log.columns) == ["number", "state", "auc", "validation_auc", "rounds", "seconds", *study["params"]]
    assert log[["number", "state", "rounds"]].to_numpy().tolist() == [[0, "complete", 2], [1, "complete", 2]]
    assert study["study"]["auc"] == log["auc"].max()
    assert study["study"]["auc_of_the_start"] == log["auc"][0]
    assert study["study"]["scored_on"] == "test rows of the tuning world"
    best = int(log["auc"].argmax())
    assert study["study"]["best_trial"] == best
    assert study["study"]["ended_at"] == ("start values", "searched values")[best]
    assert log.loc[best, list(study["params"])].to_dict() == study["params"]
    out = quality("run", *chosen, "--seeds", "2")
    assert len(re.findall(r"^default \d (?:pf_msmtrec|local) full 0\.\d{4} ", out, re.MULTILINE)) == 4
    assert quality("run", *chosen, "--seeds", "2") == "", "what is in quality.csv is not repeated"
    quality("run", "--settings", "default", "--variants", "no phase 2", "--seeds", "2")
    runs = pd.read_csv(tmp_path / "results/quality.csv")
    assert {tuple(row) for row in runs[["seed", "method", "variant"]].to_numpy()} == {
        (seed, method, "full") for seed in (0, 1) for method in ("pf_msmtrec", "local", "oracle")
    } | {(seed, "pf_msmtrec", "no phase 2") for seed in (0, 1)}
    assert runs.groupby(["seed", "method", "variant"]).size().eq(4 * 2).all(), "scenarios x tasks"
    table = quality("table")
    mean = runs[(runs.method == "local") & (runs.task == "ctr")].groupby("seed").auc.mean()
    assert f"| local | {mean.mean():.4f} ± {mean.std():.4f} |" in table
    assert "Modules of pf_msmtrec, default" in table
    assert "| default | 2 | 2 | 0 | 0% |" in table


@pytest.mark.slow(16)
def test_quality_runs_a_refit_beside_the_other_runs(quality, tmp_path):
    chosen = ("--settings", "default", "--methods", "local", "linear_local", "--seeds", "1")
    quality("tune", *chosen, "--trials", "1")
    for options in ((), ("--refit",)):
        out = quality("run", *chosen, *options)
        end = " refit" if options else ""
        assert len(re.findall(rf"^default 0 (?:local|linear_local) full{end} 0\.\d{{4}} ", out, re.MULTILINE)) == 2
        assert quality("run", *chosen, *options) == "", "what is in quality.csv is not repeated"
    runs = pd.read_csv(tmp_path / "results/quality.csv")
    assert runs.groupby(["method", "refit"]).size().eq(4 * 2).all(), "scenarios x tasks"
    wide = runs.pivot(index=["method", "scenario", "task"], columns="refit", values="auc")
    assert wide.loc["oracle"][0].equals(wide.loc["oracle"][1])
    for method in ("local", "linear_local"):
        assert (wide.loc[method][0] != wide.loc[method][1]).any(), "validation rows change a model"
    shown = [quality("table", *options) for options in ((), ("--refit",))]
    assert all("pf_msmtrec has not been run" in table for table in shown)


@pytest.mark.slow(6)
def test_quality_tunes_and_runs_floors_like_methods(quality, tmp_path):
    chosen = ("--settings", "default", "--methods", "linear_local", "linear_shared")
    quality("tune", *chosen, "--trials", "2")
    study = yaml.safe_load((tmp_path / "results/tuned/default/linear_shared.yaml").read_text())
    assert study["study"]["trials"] == 2
    assert set(study["params"]) == {"form", "l2_shared", "l2_own", "l2_shared_within", "l2_own_within"}
    out = quality("run", *chosen, "--seeds", "1")
    assert len(re.findall(r"^default 0 linear_(?:local|shared) full 0\.\d{4} ", out, re.MULTILINE)) == 2
    runs = pd.read_csv(tmp_path / "results/quality.csv")
    assert runs.groupby("method").size().to_dict() == {"linear_local": 4 * 2, "linear_shared": 4 * 2}
    assert runs.groupby("method")["auc"].mean().gt(0.55).all()
    assert set(runs["refit"]) == {0}
    log = pd.read_csv(tmp_path / "results/tuned/default/linear_shared.csv")
    assert set(study["params"]) <= set(log.columns)
    assert study["study"]["rounds_saved"] is None
    assert log["rounds"].isna().all()
    assert set(runs["rows"]) == {1000}


@pytest.fixture(scope="module")
def quality_table(benchmark):
    return benchmark("quality_table")


def test_methods_are_compared_only_if_they_were_tuned_with_the_same_number_of_trials(benchmark, tmp_path):
    worlds = benchmark("worlds")
    bench = worlds.Bench(tmp_path, tmp_path / "results", None, True)

    def write(setting, method, trials):
        path = bench.tuned_file(setting, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"study": {"trials": trials}, "params": {"model.dropout": trials / 10}}))

    for method, trials in (("local", 3), ("ditto", 3), ("fedbn", 4)):
        write("default", method, trials)
    worlds.check_studies(bench, "strong_conflict", ["local", "ditto"])
    assert bench.tuned("strong_conflict", "local") == {"model.dropout": 0.3}, "there are no studies of its own"
    with pytest.raises(ValueError, match=r"default: methods .* different numbers of trials: local 3, fedbn 4"):
        worlds.check_studies(bench, "default", ["local", "fedbn"])
    write("strong_conflict", "local", 5)
    with pytest.raises(FileNotFoundError, match=r"strong_conflict/ditto.yaml does not exist; run: quality.py tune"):
        worlds.check_studies(bench, "strong_conflict", ["local", "ditto"])


@pytest.mark.parametrize("setting", ["default", "no_conflict", "strong_conflict", "movielens"])
def test_the_committed_studies_are_of_every_method_in_the_results_with_the_same_number_of_trials(benchmark, setting):
    worlds = benchmark("worlds")
    bench = worlds.Bench(REPOSITORY, REPOSITORY / "benchmarks/results", None, False)
    runs = pd.read_csv(bench.runs)
    ran = set(runs["method"][runs["setting"] == setting])
    compared = [name for name in METHOD_NAMES if name in ran]
    assert {"pf_msmtrec", "fedavg", "fedprox", "fedbn", "fedper", "ditto", "local", "centralized"} <= set(compared)
    worlds.check_studies(bench, setting, compared + [name for name in benchmark("floors").FLOORS if name in ran])
    for method in compared:
        worlds.configure(bench, setting, 0, bench.tuned(setting, method))


@pytest.fixture(scope="module")
def studies(benchmark):
    return benchmark("studies")


@pytest.fixture
def quick_bench(benchmark, tmp_path):
    return benchmark("worlds").Bench(tmp_path, tmp_path / "results", None, True)


def test_every_method_has_a_search_whose_keys_are_in_the_parameters(benchmark, studies, quick_bench):
    config = benchmark("worlds").configure(quick_bench, "default", 0, {})
    assert set(studies.SPACE) == {"model", *METHOD_NAMES}
    for method in METHOD_NAMES:
        trial = optuna.trial.FixedTrial(
            {key: value_at(config, key) for key in studies.SPACE["model"] + studies.SPACE[method]}
        )
        # Draws outside of a range warn; that of the start is what tuning clips.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            drawn = studies.space(trial, method)
        assert list(drawn) == [*studies.SPACE["model"], *studies.SPACE[method]]


@pytest.mark.slow(3)
def test_a_trial_that_is_behind_the_median_after_a_round_is_pruned(studies, quick_bench):
    """Five earlier trials had 0.99 or 0.01 after the first of two rounds; half of all draws would be in between."""
    for reached, state in ((0.99, TrialState.PRUNED), (0.01, TrialState.COMPLETE)):
        study = optuna.create_study(direction="maximize", pruner=studies.pruner(rounds=2))
        for _ in range(studies.FIRST_TRIALS):
            study.add_trial(optuna.create_trial(value=reached, intermediate_values={1: reached, 2: reached}))
        study.optimize(studies.objective(quick_bench, "default", "local"), n_trials=1)
        trial = study.trials[-1]
        assert trial.state == state
        assert sorted(trial.intermediate_values) == ([1] if state == TrialState.PRUNED else [1, 2])
        if state == TrialState.COMPLETE:
            # Of a world that is in no table: test rows, with the round that validation rows chose.
            changes = trial.params | {"train.refit": False}
            trained = studies.train(quick_bench, "default", studies.TUNING_SEED, "local", changes)
            schema, folder, _ = studies.shards(quick_bench, "default", studies.TUNING_SEED)
            aucs = [value for tasks in trained.test(schema, folder).values() for value in tasks.values()]
            assert trial.value == pytest.approx(sum(aucs) / len(aucs), abs=1e-12)
            assert studies.judge("movielens") == "val"


def test_the_first_trials_and_the_first_half_of_rounds_are_never_pruned(studies):
    def pruned(others, round_):
        study = optuna.create_study(direction="maximize", pruner=studies.pruner(rounds=60))
        for _ in range(others):
            study.add_trial(optuna.create_trial(value=0.9, intermediate_values=dict.fromkeys(range(1, 61), 0.9)))
        trial = study.ask()
        for step in range(1, round_ + 1):
            trial.report(0.1, step)
        return trial.should_prune()

    assert [pruned(others, 59) for others in (0, studies.FIRST_TRIALS - 1, studies.FIRST_TRIALS)] == [
        False,
        False,
        True,
    ]
    assert [pruned(studies.FIRST_TRIALS, round_) for round_ in (1, 29, 30)] == [False, False, True]


def test_the_table_of_searches_says_who_ended_at_values_that_were_given(studies, quality_table, quick_bench):
    def write(setting, method, best_trial, saved, pruned=0):
        path = quick_bench.tuned_file(setting, method)
        path.parent.mkdir(parents=True, exist_ok=True)
        end = studies.ended_at(best_trial, from_default=setting != "default")
        figures = {"trials": 20, "pruned": pruned, "rounds_saved": saved, "best_trial": best_trial, "ended_at": end}
        path.write_text(yaml.safe_dump({"study": figures, "params": {}}))

    write("default", "fedavg", 0, 0.5, 12)
    write("default", "linear_local", 1, None)
    write("default", "local", 7, 0.25, 8)
    write("strong_conflict", "fedavg", 1, 0.1, 3)
    exported = {"trials": 20, "states": {"complete": 15, "pruned": 5}, "best_trial": 0}
    quick_bench.tuned_file("strong_conflict", "local").write_text(yaml.safe_dump({"study": exported, "params": {}}))
    assert quality_table.searches(quick_bench).splitlines()[2:] == [
        "| default | 3 | 20 | 20 | 38% | 1 of 3: fedavg | 0 of 3 |",
        "| strong_conflict | 2 | 20 | 8 | 10% | 1 of 2: local | 1 of 2: fedavg |",
    ]


def test_paired_differences_have_students_interval(quality_table):
    """Differences 0.01, 0.02, 0.03: mean 0.02, deviation 0.01, t(0.975, 2) = 4.3027, half width 0.024842."""
    cells = [
        {"setting": "s", "seed": seed, "method": method, "variant": "full", "scenario": "A", "task": "ctr",
         "auc": 0.7 + ahead * (0.01 * (seed + 1)), "rows": 100, "positives": 10}
        for seed in range(3)
        for method, ahead in (("pf_msmtrec", 1), ("local", 0), ("oracle", 2))
    ]  # fmt: skip
    found = quality_table.tables(pd.DataFrame(cells))
    lines = {line.split("|")[1].strip(): line for line in found.splitlines() if line.startswith("|")}
    assert "| 0.7000 ± 0.0000 |" in lines["local"]
    assert "| +0.0200 [-0.0048, +0.0448] |" in lines["local"]
    assert "| 0.7200 ± 0.0100 |" in lines["pf_msmtrec"]
    assert lines["pf_msmtrec"].endswith("| 50% |")
    assert lines["oracle"].endswith("| 100% |")


def test_the_best_of_each_kind_is_who_comes_closest(quality_table):
    """Two seeds, one scenario and task. From linear_shared (0.70, 0.71) to joint (0.80, 0.83) pf_msmtrec goes 0.06 of
    0.10 and 0.06 of 0.12."""
    aucs = {
        "pf_msmtrec": (0.76, 0.77), "fedavg": (0.60, 0.61), "a_new_rival": (0.75, 0.75), "local": (0.69, 0.70),
        "pf_msmtrec_paper": (0.765, 0.765), "linear_local": (0.68, 0.69), "linear_shared": (0.70, 0.71),
        "centralized": (0.9, 0.9), "joint": (0.80, 0.83), "oracle": (0.90, 0.91),
    }  # fmt: skip
    cells = [
        {"setting": "s", "seed": seed, "method": method, "variant": "full", "scenario": "A", "task": "ctr",
         "auc": value, "rows": 100, "positives": 10}
        for method, values in aucs.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    lines = [line for line in quality_table.tables(pd.DataFrame(cells)).splitlines() if line.startswith("|")]
    names = [line.split("|")[1].strip() for line in lines[2:12]]
    assert names == ["pf_msmtrec", "pf_msmtrec_paper", "fedavg", "a_new_rival", "local", "linear_local",
                     "linear_shared", "centralized", "joint", "oracle"]  # fmt: skip
    assert [line.split(" | ")[:2] for line in lines[14:]] == [
        ["| best rival", "a_new_rival"], ["| worst rival", "fedavg"], ["| best floor", "linear_shared"],
        ["| best of floors and local", "linear_shared"], ["| best of floors, local and rivals", "a_new_rival"],
        ["| share of the way to joint", "from linear_shared"],
    ]  # fmt: skip
    assert "| best floor | linear_shared | +0.0600 [+0.0600, +0.0600] | +0.0600 [+0.0600, +0.0600] |" in lines
    # The mean of joint's lead is 0.11 +- 12.7062 * 0.01: it may be zero.
    assert lines[-1].endswith("| 55% [no ends] | 55% [no ends] |")


def test_the_interval_of_a_share_ends_where_students_test_begins_to_refuse(quality_table):
    part, whole = pd.Series([0.010, 0.014, 0.009, 0.012, 0.013]), pd.Series([0.020, 0.021, 0.017, 0.022, 0.019])
    found = re.fullmatch(r"(\d+)% \[(\d+)%, (\d+)%\]", quality_table._share(part, whole))
    middle, *ends = (int(text) / 100 for text in found.groups())
    assert middle == round(part.mean() / whole.mean(), 2)
    precise = [
        brentq(lambda r: ttest_1samp(part - r * whole, 0).pvalue - 0.05, *sides)
        for sides in ((0.2, middle), (middle, 1.2))
    ]
    assert ends == pytest.approx(precise, abs=0.005)
    assert quality_table._share(part, -whole) == "none: joint is not ahead"
    assert quality_table._share(part[:1], whole[:1]) == "50%"


def test_pairs_of_variants_show_what_a_module_adds_and_to_whom(quality_table):
    """Two seeds, scenarios A and B, one task. Coordination takes 0.02 and 0.04 from A and gives B, the worst, 0.01 and
    0.03. Means: -0.005 in both; worst +0.01, +0.03: 0.02 +- t(0.975, 1) = 12.7062 times 0.01414 / sqrt 2."""
    aucs = {
        "full": [(0.8, 0.8), (0.8, 0.8)],
        "nothing private, plain mean": [(0.8, 0.5), (0.9, 0.6)],
        "nothing private, coordinated mean": [(0.78, 0.51), (0.86, 0.63)],
    }
    cells = [
        {"setting": "s", "seed": seed, "method": "pf_msmtrec", "variant": variant, "scenario": scenario, "task": "ctr",
         "auc": value, "rows": 100, "positives": 10}
        for variant, seeds in aucs.items()
        for seed, pair in enumerate(seeds)
        for scenario, value in zip("AB", pair, strict=True)
    ]  # fmt: skip
    found = quality_table.tables(pd.DataFrame(cells))
    assert (
        "| conflict coordination | nothing private, plain mean | nothing private, coordinated mean | "
        "-0.0050 [-0.0050, -0.0050] | -0.0050 [-0.0050, -0.0050] | +0.0200 [-0.1071, +0.1471] |"
    ) in found
    assert "personalised aggregation" not in found


def test_standard_error_is_hanley_and_mcneils(quality_table):
    """AUC 0.8, 20 positives, 80 negatives: Q1 = 2/3, Q2 = 1.28/1.8; variance (.16 + 19 (.0267) + 79 (.0711)) / 1600."""
    variance = (0.16 + 19 * (2 / 3 - 0.64) + 79 * (1.28 / 1.8 - 0.64)) / 1600
    found = quality_table.standard_error(pd.Series([0.8]), pd.Series([20]), pd.Series([80]))
    assert found[0] == pytest.approx(variance**0.5, rel=1e-12)


def test_the_results_page_shows_the_tables_of_the_committed_runs(benchmark, quality_table):
    runs = pd.read_csv(REPOSITORY / "benchmarks/results/quality.csv")
    bench = benchmark("worlds").Bench(REPOSITORY, REPOSITORY / "benchmarks/results", None, False)
    page = (REPOSITORY / "docs/results.md").read_text(encoding="utf-8")
    shown = [quality_table.tables(rows) for _, rows in runs.groupby("refit")] + [quality_table.searches(bench)]
    lines = "\n".join(shown).splitlines()
    missing = [line for line in lines if line.startswith("|") and line not in page]
    assert missing == [], "print them with: python benchmarks/quality.py table [--refit]"


@pytest.mark.slow(3)
def test_data(run, tmp_path):
    out = run("data", "--quick", "--folder", str(tmp_path))
    lines = re.findall(r"^(pfmsmt|usual) +([\d,]+) +(\d+\.\d\d) +([\d,]+) +([\d,]+)$", out, re.MULTILINE)
    assert [line[:2] for line in lines] == [("pfmsmt", "3,000"), ("pfmsmt", "6,000"), ("usual", "3,000")]
    for _, rows, seconds, speed, _ in lines:
        assert int(speed.replace(",", "")) == pytest.approx(int(rows.replace(",", "")) / float(seconds), rel=0.01)
    assert re.search(r"to the power -?\d+\.\d\d from 3,000 to 6,000", out)
    slowest = min(int(speed.replace(",", "")) for name, _, _, speed, _ in lines if name == "pfmsmt")
    assert f"slowest {slowest:,} rows/s" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw-3000", "raw-6000"]


@pytest.mark.slow(14)
def test_serving(run):
    out = run("serving", "--quick")
    assert re.search(r"^largest difference of the two servers' probabilities: \d\.\de-\d\d$", out, re.MULTILINE)
    rows = re.findall(
        r"^(\S.*?) +([\d.]+) ms +[\d.]+ ms.* ([\d.]+) \(goal (\d): (reached|missed)\)$", out, re.MULTILINE
    )
    assert [row[0] for row in rows] == ["1 row, JSON", "200 rows, JSON", "1,000 rows, Arrow", "32 clients, 200 rows"]
    for _, milliseconds, factor, goal, reached in rows:
        assert float(milliseconds) > 0
        assert (float(factor) >= float(goal)) == (reached == "reached") or float(factor) == float(goal)
    assert re.search(r"^swaps under load: 5 swaps, \d+ answers, 0 failed or without one version$", out, re.MULTILINE)
