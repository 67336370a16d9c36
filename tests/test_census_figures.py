"""The censuses' figures: every layer and network in its row, at its value; every task's models, each as one."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from upconv.book.census_figures import by_task, census
from upconv.book.figures import use_book_style

LABELS = {"B": "second", "A": "first"}
LAYERS = pd.DataFrame(
    [("A1", 2, 0.5, 0.75), ("A1", 3, 0.2, 8 / 9), ("A2", 2, 0.4, 0.75), ("B", 2, 0.9, 0.75)],
    columns=["network", "stride", "off_dc_energy", "fresh"],
)
RESPONSES = pd.DataFrame([("A1", 0.3), ("B", 2e-2), ("A2", float("nan"))], columns=["network", "pattern"])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def points(collection):
    return sorted((round(y), x) for x, y in collection.get_offsets().tolist())


def test_every_layer_and_network_is_in_its_familys_row():
    use_book_style()
    figure = census(LAYERS, RESPONSES, labels=LABELS)
    left, right = figure.axes
    assert figure.get_facecolor()[3] == 0 and right.get_xscale() == "log"
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["second", "first"]
    assert left.yaxis_inverted() and left.get_ylim() == right.get_ylim()
    of_two, of_three = (points(collection) for collection in left.collections)
    assert of_two == [(0, 0.9), (1, 0.4), (1, 0.5)] and of_three == [(1, 0.2)]
    assert points(*right.collections) == [(0, 2e-2), (1, 0.3)]
    lines = [[line.get_xdata()[0] for line in axis.lines] for axis in (left, right)]
    assert lines == [[0.75, pytest.approx(8 / 9)], [1]]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("a layer, stride 2", "a fresh layer, stride 2", "a layer, stride 3", "a fresh layer, stride 3"),
        *("a network", "one grey level"),
    ]


def test_strides_differ_in_shape_and_colour_and_dots_of_one_value_do_not_hide_each_other():
    layers = pd.concat([LAYERS[:2]] + [LAYERS[:1]] * 4)
    left, _ = census(layers, RESPONSES, labels=LABELS).axes
    circles, triangles = left.collections
    assert len(circles.get_paths()[0].vertices) > len(triangles.get_paths()[0].vertices)
    assert circles.get_facecolor()[0].tolist() != triangles.get_facecolor()[0].tolist()
    assert len({y for _, y in circles.get_offsets().tolist()}) == 5


def test_patterns_too_small_for_the_axis_are_arrows_at_its_end():
    responses = RESPONSES.assign(pattern=[7.0, 0.0, 1e-9])
    figure = census(LAYERS, responses, labels=LABELS)
    right = figure.axes[1]
    diamonds, arrows = right.collections
    assert points(diamonds) == [(1, 7)] and points(arrows) == [(0, 0.01), (1, 0.01)]
    assert right.get_xlim() == (0.01, 10.5)
    assert figure.legends[0].get_texts()[-2].get_text() == "a network, less than 0.01"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (LAYERS.assign(network="C"), "there is no label for C"),
        (LAYERS.assign(stride=4), "a layer's stride must be one of 2, 3, not 4"),
    ],
)
def test_what_has_no_place_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        census(layers, RESPONSES, labels=LABELS)


MODELS = pd.DataFrame(
    [("b", 4, 1, 3, 0), ("b", 100, 0, 0, 100), ("a", 2, 2, 0, 0)],
    columns=["task", "steps", "one", "two", "three"],
)
GROUPS = {"first": ["one", "two"], "second": ["three"]}


def test_each_model_of_a_task_weighs_the_same_however_many_steps_it_has():
    use_book_style()
    figure = by_task(MODELS, GROUPS)
    [axis] = figure.axes
    assert figure.get_facecolor()[3] == 0 and axis.yaxis_inverted()
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["b (2)", "a (1)"]
    first, second = axis.containers
    assert [(bar.get_x(), bar.get_width()) for bar in first] == [(0, 0.5), (0, 1)]
    assert [(bar.get_x(), bar.get_width()) for bar in second] == [(0.5, 0.5), (1, 0)]
    assert [text.get_text() for text in axis.texts] == ["50%", "100%", "50%", ""]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(GROUPS)
    assert len({bars[0].get_facecolor() for bars in axis.containers}) == 2


@pytest.mark.parametrize(
    ("models", "groups", "message"),
    [
        (MODELS, dict(first=["one"], second=["three"]), "must hold every step of a model once"),
        (MODELS.assign(steps=0, one=0, two=0, three=0), GROUPS, "each model must have one"),
        (MODELS, {str(number): ["one"] for number in range(7)}, "colours for 6 groups, not for 7"),
    ],
)
def test_models_that_the_bars_do_not_hold_are_refused(models, groups, message):
    with pytest.raises(ValueError, match=message):
        by_task(models, groups)
