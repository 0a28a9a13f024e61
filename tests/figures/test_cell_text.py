"""Values in the cells of a heatmap fit, or are left out."""

import io

import numpy as np
import pytest
import torch
from figure_contents import texts
from lightning_cka import CKAResult, plot_cka
from lightning_cka.figures.cell_text import write_values
from lightning_cka.figures.cells import draw_cells
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from synthetic_results import result


def drawn_texts(figure, ax):
    """The texts that are drawn in the cells, by their boxes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return {
        text.get_text(): text.get_window_extent(canvas.get_renderer())
        for text in ax.texts
        if text._room.choice(ax, canvas.get_renderer())
    }


def with_errors(size):
    return result(size, size, standard_error=torch.full((size, size), 0.02))


def test_values_in_cells():
    _, ax = plot_cka(result(2, 2), add_text=True)
    assert texts(ax.texts) == ["-0.10", "0.27", "0.63", "1.00"]
    assert [t.get_color() for t in ax.texts] == ["white", "white", "black", "black"]


def test_values_in_cells_have_their_standard_errors():
    errors = torch.tensor([[0.01, 0.02], [torch.nan, 0.04]])
    _, ax = plot_cka(result(2, 2, standard_error=errors), add_text=True)
    assert texts(ax.texts) == ["-0.100\n±0.010", "0.267\n±0.020", "0.633", "1.000\n±0.040"]
    _, ax = plot_cka(result(2, 2, standard_error=torch.full((2, 2), torch.nan)), add_text=True)
    assert texts(ax.texts)[0] == "-0.10"  # The error of a single batch is not known.


def test_zero_has_no_sign():
    _, ax = plot_cka(CKAResult(torch.tensor([[-0.0001, torch.nan]]), "a", "ab"), add_text=True)
    assert texts(ax.texts) == ["0.00", "nan"]


def test_hidden_cells_are_covered_and_empty():
    ax = Figure().add_subplot()
    hidden = np.array([[False, True], [False, False]])
    image = draw_cells(ax, np.eye(2), "viridis", 0.0, 1.0, hidden)
    write_values(ax, image, np.eye(2), None, hidden)
    assert (~ax.get_images()[1].get_array().mask == hidden).all()
    assert [t.get_position() for t in ax.texts] == [(0, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("size", [2, 8, 16])
@pytest.mark.parametrize("width", [2.5, 5.0])
def test_texts_stay_within_their_cells(size, width):
    figure = Figure((width, width), dpi=90)
    _, ax = plot_cka(with_errors(size), figure.add_subplot(), add_text=True)
    found = drawn_texts(figure, ax)
    cell = ax.bbox.width / size, ax.bbox.height / size
    assert all(box.width < cell[0] and box.height < cell[1] for box in found.values())
    assert bool(found) == ((size, width) in [(2, 2.5), (2, 5.0), (8, 5.0), (16, 5.0)])


def test_without_room_for_errors_there_are_values_and_then_nothing():
    figure = Figure((9, 9), dpi=100)
    _, ax = plot_cka(with_errors(9), figure.add_subplot(), add_text=True)
    assert all("±" in text for text in drawn_texts(figure, ax))
    figure.set_size_inches(3.7, 3.7)
    assert {"±" in text for text in drawn_texts(figure, ax)} == {False}
    figure.set_size_inches(1.6, 1.6)
    assert drawn_texts(figure, ax) == {}
    figure.set_size_inches(9, 9)
    assert all("±" in text for text in drawn_texts(figure, ax))


def test_other_resolutions_and_vector_files_have_the_same_texts():
    figure = Figure((4, 4), dpi=50)
    _, ax = plot_cka(result(4, 4), figure.add_subplot(), add_text=True)
    sizes = []
    for dpi, kind in ((50, "png"), (300, "png"), (72, "svg"), (72, "pdf")):
        figure.savefig(io.BytesIO(), dpi=dpi, format=kind)
        sizes.append(ax.texts[0].get_fontsize())
    assert sizes == pytest.approx([sizes[0]] * 4, rel=0.1)


def test_texts_are_not_larger_than_other_texts():
    with rc_context({"font.size": 5.0}):
        figure, ax = plot_cka(result(2, 2), add_text=True)
        drawn_texts(figure, ax)
    assert ax.texts[0].get_fontsize() == 4.0
