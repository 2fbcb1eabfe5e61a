"""Recipes carry the published settings and numbers, checked against what the code of the paper holds."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lasat_ray.cli.run_options import render_recipes
from lasat_ray.config import TrainConfig
from lasat_ray.errors import UsageError
from lasat_ray.models import find_builder
from lasat_ray.recipes import RECIPES, find_recipe, get_recipe
from lasat_ray.recipes.images import fitted
from lasat_ray.update.optim import learning_rate
from lasat_ray.validation import check
from tests.support.published_rows import LEADERBOARDS

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = [name for name in RECIPES if RECIPES[name].table]
COLUMNS = {"clean", "fgsm", "pgd10", "pgd20", "pgd50", "cw", "aa", "time_min"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_found_under_its_own_name(name):
    recipe = get_recipe(name)
    assert recipe.name == recipe.config.recipe == name
    assert recipe.summary and "\n" not in recipe.summary


@pytest.mark.parametrize("name", RECIPES)
def test_the_nets_of_a_recipe_exist(name):
    config = RECIPES[name].config
    assert find_builder(config.model, field="--model")
    assert find_builder(config.strategy_model, field="--strategy-model")


@pytest.mark.parametrize("name", PUBLISHED)
def test_reported_numbers_are_percentages_under_known_names(name):
    reported = RECIPES[name].reported
    assert set(reported) <= COLUMNS
    accuracies = {key: value for key, value in reported.items() if key != "time_min"}
    assert all(5 < value < 100 for value in accuracies.values())
    assert max(accuracies, key=accuracies.__getitem__) == "clean"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_final_evaluation_measures_what_was_reported(name):
    recipe = RECIPES[name]
    steps = {int(key[3:]) for key in recipe.reported if key.startswith("pgd")}
    assert set(recipe.config.evaluation.test_num_steps) == steps


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("table1-cifar10-resnet18-pgd-at", {"clean": 82.56, "pgd10": 53.15, "time_min": 261.0}),
        ("table1-cifar10-resnet18-las-at-k40", {"clean": 82.3, "pgd10": 54.29, "time_min": 365.0}),
        (
            "table2-cifar10-wrn34-10-las-at",
            {"clean": 86.23, "pgd10": 57.64, "pgd20": 56.49, "pgd50": 56.12, "cw": 55.73, "aa": 53.58},
        ),
        (
            "table3-cifar100-wrn34-10-las-trades",
            {"clean": 60.62, "pgd10": 32.99, "pgd20": 32.53, "pgd50": 32.39, "cw": 29.51, "aa": 28.12},
        ),
        (
            "table4-tiny-imagenet-preactresnet18-trades",
            {"clean": 39.16, "pgd50": 15.74, "cw": 12.92, "aa": 12.32},
        ),
        (
            "table2-cifar10-wrn34-10-gairat",
            {"clean": 86.3, "pgd10": 60.64, "pgd20": 59.54, "pgd50": 58.74, "cw": 45.57, "aa": 40.3},
        ),
        ("table5-cifar100-wrn34-20-las-awp", {"clean": 67.31, "aa": 31.92}),
        ("table7-cifar10-wrn34-10-dart", {"clean": 85.03, "fgsm": 63.53, "pgd20": 48.7, "cw": 47.27}),
        (
            "ablation-cifar10-resnet18-awp-steps10-eps15",
            {"clean": 66.73, "pgd10": 52.24, "pgd20": 52.14, "pgd50": 52.06, "cw": 48.1, "aa": 47.03},
        ),
        ("gtsrb-clean", {"clean": 98.22, "pgd50": 12.63, "cw": 13.28, "aa": 9.77}),
    ],
)
def test_numbers_stand_under_the_right_columns(name, reported):
    assert RECIPES[name].reported == reported


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("table2-cifar10-wrn34-10-las-at", "las_policy_loss.npz"),
        ("table2-cifar10-wrn34-10-las-trades", "las_policy_loss_trades.npz"),
    ],
)
def test_grids_are_the_option_lists_of_the_papers_code(name, file):
    grid, golden = RECIPES[name].config.attack.grid, np.load(GOLDEN / file)
    fields = {"eps": "epsilon", "num_steps": "iters", "step_size": "step", "trades_beta": "beta"}
    for field, values in grid.items():
        scale = 255 if field in ("eps", "step_size") else 1
        np.testing.assert_allclose(np.array(values) * scale, golden[f"{fields[field]}_types"], rtol=1e-15)
    assert list(grid) == [field for field, name in fields.items() if f"{name}_types" in golden]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("table2-cifar10-wrn34-10-las-at", "lr_las_pgd_at_milestone_steps"),
        ("table2-cifar10-wrn34-10-las-trades", "lr_las_trades_milestone_steps"),
    ],
)
def test_the_rate_drops_where_the_papers_code_drops_it(name, key):
    golden = np.load(GOLDEN / "schedules.npz")
    batches = 391
    assert [m * batches for m in RECIPES[name].config.optim.milestones] == golden[key].tolist()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("table2-cifar10-wrn34-10-trades", "lr_trades"),
        ("table2-cifar10-wrn34-10-mart", "lr_mart_wrn"),
        ("table2-cifar10-wrn34-10-fat", "lr_fat"),
        ("table2-cifar10-wrn34-10-gairat", "lr_gairat_E120"),
        ("table3-cifar100-wrn34-10-lbgat", "lr_lbgat"),
    ],
)
def test_rivals_keep_the_rates_of_their_scripts(name, key):
    config, golden = RECIPES[name].config, np.load(GOLDEN / "schedules.npz")[key]
    assert config.epochs == len(golden)
    rates = [learning_rate(config.optim, epoch, config.epochs) for epoch in range(config.epochs)]
    np.testing.assert_allclose(rates, golden, rtol=1e-12)


def test_every_row_of_the_tables_has_a_recipe():
    rows = {}
    for recipe in RECIPES.values():
        if recipe.table:
            rows.setdefault(recipe.table, []).append(recipe.row)
    assert {table: len(names) for table, names in rows.items()} == {
        "Table 1": 6,
        "Table 2": 10,
        "Table 3": 8,
        "Table 4": 6,
        "Table 5": 4,
        "Table 6": 4,
        "Table 7": 5,
        "GTSRB": 7,
        "AWP ablation": 4,
        "CIFAR-100 leaderboard": 5,
        "CIFAR-10 leaderboard": 7,
    }


def test_rows_stand_table_after_table_with_the_papers_own_last():
    rows = [recipe.row for recipe in RECIPES.values() if recipe.table == "Table 2"]
    assert rows[0] == "PGD-AT" and rows[-3:] == ["LAS-AT", "LAS-TRADES", "LAS-AWP"]
    tables = [recipe.table for recipe in RECIPES.values()]
    assert tables == sorted(tables, key=list(dict.fromkeys(tables)).index)


def test_table_1_rows_differ_in_k_alone():
    names = [name for name in RECIPES if name.startswith("table1") and "-k" in name]
    assert [RECIPES[name].config.update_interval for name in names] == [1, 10, 20, 40, 60]
    first = RECIPES[names[0]].config
    for name in names[1:]:
        config = RECIPES[name].config
        assert (config.attack, config.optim, config.loss, config.policy, config.epochs) == (
            first.attack,
            first.optim,
            first.loss,
            first.policy,
            first.epochs,
        )


def test_label_smoothing_is_what_the_factors_leave():
    smoothing = {
        name: RECIPES[name].config.loss.label_smoothing for name in PUBLISHED if name.endswith("-las-at")
    }
    assert smoothing == {
        "table2-cifar10-wrn34-10-las-at": 0.3,
        "table3-cifar100-wrn34-10-las-at": 0.4,
        "table4-tiny-imagenet-preactresnet18-las-at": 0.2,
        "gtsrb-las-at": 0.3,
    }


@pytest.mark.parametrize(("name", "close"), [("digit", "digits"), ("gtsrb-lasat", "gtsrb-las-at")])
def test_an_unknown_recipe_is_answered_with_the_closest(name, close):
    with pytest.raises(UsageError, match=f"--recipe: '{name}' is unknown; did you mean {close}"):
        get_recipe(name)


def test_leaderboard_rows_report_what_the_leaderboard_shows():
    ours = {(entry.dataset, entry.rank): recipe for recipe in RECIPES.values() if (entry := recipe.entry)}
    assert ours.keys() == LEADERBOARDS.keys()
    for key, recipe in ours.items():
        clean, aa, architecture, extra_data = LEADERBOARDS[key]
        assert recipe.reported == {"clean": clean, "aa": aa}
        assert recipe.config.dataset == key[0] and int(recipe.row.split(".")[0]) == key[1]
        assert recipe.entry.extra_data == extra_data == ("extra data" in recipe.summary)
        depth = "".join(c for c in architecture if c.isdigit())
        assert "".join(c for c in recipe.config.model if c.isdigit()) == depth


CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
PLAIN = ((0.0,), (1.0,))
ZOO = {
    "leaderboard-cifar100-1-gowal": ("dm_wrn-70-16-silu", CIFAR100),
    "leaderboard-cifar100-2-rebuffi": ("dm_wrn-70-16-silu", CIFAR100),
    "leaderboard-cifar100-3-score": ("dm_wrn-70-16-silu", CIFAR100),
    "leaderboard-cifar100-4-rebuffi": ("dm_wrn-28-10-silu", CIFAR100),
    "leaderboard-cifar100-5-las-awp": ("wrn-34-20", PLAIN),
    "leaderboard-cifar10-31-hydra": ("wrn-28-10", PLAIN),
    "leaderboard-cifar10-32-hat": ("dm_preact_resnet18", CIFAR10),
    "leaderboard-cifar10-33-ltd": ("wrn-34-10", PLAIN),
    "leaderboard-cifar10-34-gowal": ("dm_wrn-34-20-silu", CIFAR10),
    "leaderboard-cifar10-35-rebuffi": ("dm_preact_resnet18", CIFAR10),
    "leaderboard-cifar10-36-mart": ("wrn-28-10", PLAIN),
    "leaderboard-cifar10-37-las-awp": ("wrn-34-10", PLAIN),
}
"""Typed from RobustBench's model_zoo/cifar10.py and cifar100.py: DMWideResNet and DMPreActResNet with Swish,
WideResNet with ReLU."""


def test_the_nets_of_the_leaderboard_are_robustbenchs():
    ours = {name: RECIPES[name].config for name, recipe in RECIPES.items() if recipe.entry}
    assert {n: (c.model, (c.data.mean, c.data.std)) for n, c in ours.items()} == ZOO


RECENT = ("ikl-cifar10-wrn34-10", "ikl-cifar100-wrn34-10", "adr-cifar10-resnet18", "adr-cifar10-resnet18-wa")


def test_recent_recipes_report_what_their_papers_print():
    """IKL: Tables 2 and 3 of the paper; ADR: the table of the authors' page."""
    reported = [tuple(RECIPES[name].reported.values()) for name in RECENT]
    assert reported == [(84.80, 57.09), (65.76, 31.91), (82.41, 50.39), (82.59, 50.86)]
    assert RECIPES["adr-cifar10-wrn34-10-wa-awp"].reported == {"clean": 86.11, "aa": 55.22}
    assert RECIPES["adr-cifar100-wrn34-10-wa-awp"].reported == {"clean": 62.21, "aa": 31.63}
    assert RECIPES["adr-cifar100-resnet18"].reported == {"clean": 56.10, "aa": 26.89}
    assert RECIPES["adr-cifar100-resnet18-wa"].reported == {"clean": 58.30, "aa": 27.54}


def test_budgets_of_ikl_grow_by_the_epoch():
    config = RECIPES["ikl-cifar10-wrn34-10"].config
    eps, step = config.attack.grid["eps"], config.attack.grid["step_size"]
    assert config.strategy == "curriculum" and len(eps) == config.epochs == 200
    np.testing.assert_allclose(np.array(eps) * 255, 8 * np.arange(1, 201) / 200, rtol=1e-12)
    np.testing.assert_allclose(step, np.array(eps) / 2, rtol=1e-12)


def at_epoch(name, number):
    """The strategy of an epoch, counted from 1 as scripts do; lengths in 1/255."""
    config = RECIPES[name].config
    assert all(len(values) == config.epochs for values in config.attack.grid.values())
    lengths = ("eps", "step_size")
    return {
        field: values[number - 1] * (255 if field in lengths else 1)
        for field, values in config.attack.grid.items()
    }


ALIKE = {
    ("dajat-like-cifar10-resnet18", 1): {"eps": 0.04, "step_size": 0.02},
    ("dajat-like-cifar10-wrn34-10", 150): {"eps": 6, "step_size": 3},
    ("oaat-like-cifar10-resnet18", 1): {"eps": 4, "num_steps": 5, "step_size": 2, "trades_beta": 1.5},
    ("oaat-like-cifar10-resnet18", 27): {"eps": 4, "num_steps": 5, "step_size": 2, "trades_beta": 1.5},
    ("oaat-like-cifar10-resnet18", 55): {"eps": 8, "num_steps": 10, "step_size": 2, "trades_beta": 1.5},
    ("oaat-like-cifar10-resnet18", 96): {
        "eps": 16 * 96 / 110,
        "num_steps": 10,
        "step_size": 4 * 96 / 110,
        "trades_beta": 2.25,
    },
    ("oaat-like-cifar10-wrn34-10", 51): {
        "eps": 4.08,
        "num_steps": 10,
        "step_size": 1.02,
        "trades_beta": 2.0,
    },
    ("oaat-like-cifar10-wrn34-10", 150): {"eps": 12, "num_steps": 10, "step_size": 3, "trades_beta": 2.0},
    ("oaat-like-cifar10-wrn34-10", 200): {"eps": 16, "num_steps": 10, "step_size": 4, "trades_beta": 3.0},
}
"""By hand, from train_DAJAT.py and train_OAAT.py with their defaults."""


@pytest.mark.parametrize(("name", "number"), ALIKE)
def test_budgets_of_dajat_and_oaat_grow_as_in_their_scripts(name, number):
    assert at_epoch(name, number) == pytest.approx(ALIKE[name, number], rel=1e-12)
    config = RECIPES[name].config
    assert (config.method, config.loss.awp_gamma, config.loss.awp_warmup) == ("trades", 0.005, 9)
    assert (config.optim.lr, config.optim.schedule, config.optim.ema_decay) == (0.2, "cosine", 0.9996)


def test_what_is_only_like_a_paper_does_not_report_its_figures():
    names = sorted({name for name, _ in ALIKE})
    config = {name: RECIPES[name].config for name in names}
    assert not any(RECIPES[name].reported for name in names)
    assert [config[name].loss.trades_beta for name in names] == [11.0, 10.0, 1.5, 2.0]
    assert [config[name].optim.weight_decay for name in names] == [5e-4, 5e-4, 5e-4, 3e-4]
    assert [config[name].data.policy for name in names] == [
        "autoaugment",
        "autoaugment",
        "none",
        "autoaugment",
    ]
    assert [config[name].epochs for name in names] == [200, 200, 110, 200]
    for name in names:
        rate = RECIPES[f"{name}-rate"].config
        assert rate.strategy == "learned" and set(rate.attack.grid) == {"eps", "num_steps", "step_size"}
        check(rate)


def test_rebat_is_run_by_its_authors_commands():
    """--lr-factor, --beta, --stronger-epsilon and its steps of the three commands of their page."""
    names = (
        "rebat-cifar10-preactresnet18",
        "rebat-plus-cifar10-preactresnet18",
        "rebat-cutmix-cifar10-wrn34-10",
    )
    configs = [RECIPES[name].config for name in names]
    rates = [[round(learning_rate(c.optim, e, 200), 6) for e in (0, 99, 100, 149, 150)] for c in configs]
    assert rates == [
        [0.1, 0.1, 0.066667, 0.066667, 0.044444],
        [0.1, 0.1, 0.058824, 0.058824, 0.034602],
        [0.1, 0.1, 0.025, 0.025, 0.00625],
    ]
    assert [c.loss.rebat_weight for c in configs] == [1.0, 1.0, 2.0]
    assert [c.data.cutmix for c in configs] == [False, False, True]
    assert configs[1].attack.grid == {"eps": (8 / 255, 10 / 255), "num_steps": (10.0, 12.0)}
    assert all(c.attack.step_size == 2 / 255 and c.loss.rebat_decay == 0.999 for c in configs)
    for name in names:
        check(RECIPES[name].config)
        check(RECIPES[f"{name}-rate"].config)


@pytest.mark.parametrize(
    "name", [*RECENT, "adr-cifar100-wrn34-10-wa-awp", "kd-swa-cifar10-resnet18", "te-cifar10-resnet18"]
)
def test_recent_recipes_have_a_form_that_is_paid_by_the_pass(name):
    plain, rate = RECIPES[name], RECIPES[f"{name}-rate"]
    assert rate.config.reward.objective == "rate" and rate.config.strategy == "learned"
    assert rate.config.loss == plain.config.loss and rate.config.optim == plain.config.optim
    assert rate.needs == plain.needs and not rate.reported


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].needs])
def test_what_only_the_user_can_give_is_asked_for(name):
    recipe = RECIPES[name]
    config = recipe.config
    for option in recipe.needs:
        with pytest.raises(UsageError, match=f"{option}: None"):
            check(config)
        config = dataclasses.replace(config, **{option[2:].replace("-", "_"): "runs/a"})
    check(config)


def test_the_list_is_readable_in_a_hundred_columns():
    out = Console(width=100, file=io.StringIO())
    out.print(render_recipes())
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    for recipe in RECIPES.values():
        assert recipe.name in text
        for shown in ([f"{recipe.table}, {recipe.row}"] if recipe.table else []) + list(recipe.needs):
            assert shown in text, shown


LEARNED = [
    name
    for name, recipe in RECIPES.items()
    if recipe.config.strategy == "learned" and recipe.config.reward.objective != "rate" and name != "digits"
]
"""Those paid by the pass are such siblings; ``digits-rate`` has its own number of epochs."""


@pytest.mark.parametrize("name", LEARNED)
def test_a_learned_recipe_has_a_sibling_that_is_paid_by_the_pass(name):
    own, rate = RECIPES[name].config, get_recipe(f"{name}-rate").config
    check(rate)
    assert rate.recipe == f"{name}-rate" and not get_recipe(f"{name}-rate").reported
    assert (rate.reward.objective, rate.reward.outcome) == ("rate", "heldout")
    assert min(rate.attack.grid["num_steps"]) == 1, "where steps have a price there is a short attack"
    same = ("dataset", "model", "method", "optim", "loss", "data", "epochs", "batch_size", "evaluation")
    assert all(getattr(rate, field) == getattr(own, field) for field in same)
    assert rate.reward.ref_eps == own.reward.ref_eps
    assert set(rate.attack.grid) - {"eps", "num_steps", "step_size"} == set(own.attack.grid) - {
        "eps",
        "num_steps",
        "step_size",
    }


def test_own_images_are_paid_by_the_pass_for_as_many_passes():
    own, published = get_recipe("images").config, get_recipe("images-las-at").config
    rate = get_recipe("images-las-at-rate").config
    assert own == dataclasses.replace(rate, recipe="images", epochs=3 * published.epochs)
    assert published.reward == TrainConfig().reward and published.attack.grid["num_steps"][0] == 3
    for count, epochs in ((100, 180), (6_000, 108), (20_000, 60)):
        sizes = [fitted(config, count, (3, 32, 32), ()) for config in (own, published)]
        assert [size.epochs for size in sizes] == [epochs, epochs // 3]
        fixed = fitted(dataclasses.replace(own, strategy="fixed"), count, (3, 32, 32), ())
        assert fixed.epochs == epochs // 3, "ten steps for every image are no cheaper for a recipe's name"
    few, given = fitted(own, 25, (3, 32, 32), ()), fitted(own, 25, (3, 32, 32), {"--reward.outcome-images"})
    assert (few.reward.outcome_images, given.reward.outcome_images) == (5, 32)


def test_what_learns_nothing_or_is_paid_so_already_has_no_such_sibling():
    assert find_recipe("table1-cifar10-resnet18-pgd-at-rate") is None
    assert find_recipe("images-rate") is None and find_recipe("digits-rate-rate") is None
    with pytest.raises(UsageError, match="unknown"):
        get_recipe("nothing-rate")
