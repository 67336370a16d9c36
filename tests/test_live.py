"""The live exercises' panel."""

import ipywidgets
import pytest

from upconv.book.live import Panel


@pytest.fixture
def panel():
    return Panel(lambda stride, padding: f"stride {stride}, padding {padding}", stride=(1, 4, 2), padding=(0, 3, 0))


def test_the_picture_follows_the_sliders(panel):
    assert panel.html == "stride 2, padding 0"
    assert [slider.description for slider in panel.widget.children[:2]] == ["stride", "padding"]
    panel.widget.children[0].value = 4  # as a reader's hand does
    assert panel.html == "stride 4, padding 0"
    panel.set(stride=1, padding=3)
    assert (panel.html, panel.values) == ("stride 1, padding 3", dict(stride=1, padding=3))


def test_a_value_outside_a_slider_is_refused_and_nothing_moves(panel):
    with pytest.raises(ValueError, match=r"stride=5 must be from 1 to 4"):
        panel.set(stride=5)
    assert panel.html == "stride 2, padding 0"


def test_a_notebook_is_offered_the_widget_and_a_page_the_drawing_at_the_start(panel):
    start = panel.html
    shown = panel._repr_mimebundle_(include=None, exclude=None)
    assert shown["text/html"] == start
    assert shown["application/vnd.jupyter.widget-view+json"]["model_id"] == panel.widget.model_id


def test_only_widgets_of_ipywidgets_7_are_used(panel):
    kinds = {type(widget) for widget in [panel.widget, *panel.widget.children]}
    assert kinds == {ipywidgets.VBox, ipywidgets.IntSlider, ipywidgets.HTML}
