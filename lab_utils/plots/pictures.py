"""Small colour pictures in rows, smoothly enlarged."""

import textwrap

from .style import empty_figure, plain

WIDE = 13  # letters of a caption in one line: more would run into the next column's


def picture_rows(rows: dict, captions, title: str = ""):
    """Figure of rows of pictures, one below the other, with a caption over each column.

    Parameters
    ----------
    rows : dict name -> array or sequence of RGB pictures (height, width, 3), uint8 or float in [0, 1]; all equally long
    captions : sequence of str, one per column
    title : str
    """
    figure = empty_figure(1.5 * len(captions), 1.65 * len(rows) + 0.7)
    figure.photograph = True
    axes = figure.subplots(len(rows), len(captions), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for one, picture in zip(line, pictures, strict=True):
            one.imshow(plain(picture), interpolation="bicubic")
            one.set_xticks([])
            one.set_yticks([])
        line[0].set_ylabel(name, fontsize=14)
    for one, caption in zip(axes[0], captions, strict=True):
        one.set_title(textwrap.fill(caption, WIDE), fontsize=13)
    figure.suptitle(title, fontsize=16)
    return figure
