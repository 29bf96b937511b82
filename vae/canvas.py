"""What all pictures share: their look, and how they become bytes or pixels.

Pictures are drawn on canvases of their own, never through pyplot, so that they need no display and no global state.
"""

import io
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RULE, TEXT = "#aab1bd", "#3c4350"

_DPI = 120
MAKER = "music-vae-sweep"
"""Named in each PNG file."""


def tidy(panel: "Axes") -> None:
    """Gives axes small labels, no ticks and a thin frame."""
    panel.tick_params(labelsize=8, labelcolor=TEXT, length=0)
    for spine in panel.spines.values():
        spine.set_color(RULE)
        spine.set_linewidth(0.6)


def entitle(figure: "Figure", title: str) -> None:
    """Writes a title at the left."""
    figure.suptitle(title, fontsize=11, fontweight="bold", color=TEXT, x=0.01, ha="left", parse_math=False)


def png(figure: "Figure") -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    # matplotlib would name its version in the file, so the bytes would change with it.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": MAKER})
    return buffer.getvalue()


def pixels(figure: "Figure") -> npt.NDArray[np.uint8]:
    """A figure as pixels, [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib's types stop short of its canvases
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
