"""The live exercise: sliders, and a drawing that follows them, where Python must answer."""

import ipywidgets

__all__ = ["Panel"]


class Panel:
    """Sliders over a drawing; the last line of a cell shows it.

    It uses only what ipywidgets 7.7.1 has, and no output capture: each change writes the drawing into an HTML widget.
    Where no kernel runs, as on the book's pages, the drawing at the start stands there.

    Parameters
    ----------
    draw : callable
        Takes the sliders' values by name and returns an HTML string.
    sliders : (int, int, int)
        For every name: smallest value, largest value, value at the start.

    Examples
    --------
    >>> panel = Panel(lambda kernel_size: f"<b>{kernel_size}</b>", kernel_size=(1, 7, 3))
    >>> panel.set(kernel_size=5)
    >>> panel.values, panel.html
    ({'kernel_size': 5}, '<b>5</b>')
    """

    def __init__(self, draw, **sliders):
        self._draw = draw
        self._sliders = {
            name: ipywidgets.IntSlider(
                value=start, min=low, max=high, description=name, style={"description_width": "110px"}
            )
            for name, (low, high, start) in sliders.items()
        }
        self._picture = ipywidgets.HTML()
        for slider in self._sliders.values():
            slider.observe(self._follow, names="value")
        self._follow()
        self.widget = ipywidgets.VBox([*self._sliders.values(), self._picture])

    def __repr__(self):
        return f"Panel of {self.values}"

    def _repr_mimebundle_(self, **kwargs):
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return {"text/plain": repr(self), "text/html": self.html, "application/vnd.jupyter.widget-view+json": view}

    @property
    def values(self):
        """The sliders' values, by name."""
        return {name: slider.value for name, slider in self._sliders.items()}

    @property
    def html(self):
        """What the panel shows under its sliders."""
        return self._picture.value

    def set(self, **values):
        """Move sliders, as a reader would; a value outside a slider's range is a ValueError."""
        for name, value in values.items():
            slider = self._sliders[name]
            if not slider.min <= value <= slider.max:
                raise ValueError(f"{name}={value!r} must be from {slider.min} to {slider.max}")
            slider.value = value

    def _follow(self, change=None):
        self._picture.value = self._draw(**self.values)
