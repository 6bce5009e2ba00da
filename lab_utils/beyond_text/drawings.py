"""Small drawings by rule: a thing, a colour, a style. A diffusion model can learn them in minutes.

`caption` is what a model reads, `draw` what it sees. Every size is drawn again from the same shapes, so that a real
Stable Diffusion can be given the same drawings at 512 × 512.
"""

import random

from ..errors import LabError, at_least, choose

COLOURS = {
    "red": (222, 50, 48),
    "orange": (245, 146, 30),
    "yellow": (250, 214, 50),
    "green": (56, 158, 72),
    "blue": (48, 104, 214),
    "purple": (142, 68, 188),
}
STYLES = {  # the background of a drawing
    "ink": (252, 249, 240),
    "chalk": (44, 54, 50),
    "neon": (12, 10, 34),
}
INK, CHALK = (44, 40, 52), (238, 238, 228)
FINER = 4  # each side is drawn so many times larger, then averaged: soft edges

# Shapes in a square of side 1, from back to front: (form, corner points, shade). An ellipse has two corners of its box.
# A shade is what part of the thing's colour it has: "body" the colour itself, "dark" and "light" variants of it.
THINGS = {
    "house": (
        ("polygon", ((0.68, 0.16), (0.78, 0.16), (0.78, 0.42), (0.68, 0.42)), "dark"),
        ("polygon", ((0.18, 0.46), (0.82, 0.46), (0.82, 0.90), (0.18, 0.90)), "light"),
        ("polygon", ((0.08, 0.50), (0.50, 0.12), (0.92, 0.50)), "body"),
        ("polygon", ((0.42, 0.62), (0.58, 0.62), (0.58, 0.90), (0.42, 0.90)), "dark"),
    ),
    "tree": (
        ("polygon", ((0.43, 0.60), (0.57, 0.60), (0.60, 0.93), (0.40, 0.93)), "dark"),
        ("ellipse", ((0.12, 0.32), (0.56, 0.72)), "body"),
        ("ellipse", ((0.44, 0.32), (0.88, 0.72)), "body"),
        ("ellipse", ((0.26, 0.07), (0.74, 0.54)), "body"),
        ("ellipse", ((0.36, 0.17), (0.54, 0.33)), "light"),
    ),
    "boat": (
        ("polygon", ((0.46, 0.10), (0.52, 0.10), (0.52, 0.68), (0.46, 0.68)), "dark"),
        ("polygon", ((0.56, 0.12), (0.56, 0.58), (0.90, 0.58)), "light"),
        ("polygon", ((0.42, 0.22), (0.42, 0.58), (0.14, 0.58)), "light"),
        ("polygon", ((0.06, 0.66), (0.94, 0.66), (0.78, 0.90), (0.22, 0.90)), "body"),
    ),
    "fish": (
        ("polygon", ((0.66, 0.50), (0.95, 0.24), (0.95, 0.76)), "dark"),
        ("polygon", ((0.34, 0.34), (0.50, 0.12), (0.62, 0.36)), "dark"),
        ("ellipse", ((0.06, 0.27), (0.78, 0.75)), "body"),
        ("ellipse", ((0.18, 0.40), (0.30, 0.52)), "light"),
    ),
    "flower": (
        ("polygon", ((0.47, 0.52), (0.53, 0.52), (0.53, 0.94), (0.47, 0.94)), "dark"),
        ("ellipse", ((0.53, 0.70), (0.82, 0.84)), "dark"),
        ("ellipse", ((0.36, 0.04), (0.64, 0.32)), "body"),
        ("ellipse", ((0.36, 0.38), (0.64, 0.66)), "body"),
        ("ellipse", ((0.18, 0.21), (0.46, 0.49)), "body"),
        ("ellipse", ((0.54, 0.21), (0.82, 0.49)), "body"),
        ("ellipse", ((0.38, 0.23), (0.62, 0.47)), "light"),
    ),
    "car": (
        ("polygon", ((0.26, 0.52), (0.36, 0.27), (0.68, 0.27), (0.80, 0.52)), "light"),
        ("polygon", ((0.06, 0.50), (0.94, 0.50), (0.94, 0.74), (0.06, 0.74)), "body"),
        ("ellipse", ((0.16, 0.62), (0.38, 0.84)), "dark"),
        ("ellipse", ((0.62, 0.62), (0.84, 0.84)), "dark"),
    ),
    "mushroom": (
        ("polygon", ((0.40, 0.48), (0.60, 0.48), (0.66, 0.92), (0.34, 0.92)), "light"),
        ("chord", ((0.08, 0.10), (0.92, 0.96)), "body"),
        ("ellipse", ((0.28, 0.24), (0.44, 0.38)), "light"),
        ("ellipse", ((0.58, 0.22), (0.76, 0.38)), "light"),
    ),
    "rocket": (
        ("polygon", ((0.34, 0.56), (0.14, 0.84), (0.36, 0.78)), "dark"),
        ("polygon", ((0.66, 0.56), (0.86, 0.84), (0.64, 0.78)), "dark"),
        ("polygon", ((0.42, 0.76), (0.50, 0.93), (0.58, 0.76)), "light"),
        ("polygon", ((0.50, 0.06), (0.66, 0.28), (0.66, 0.78), (0.34, 0.78), (0.34, 0.28)), "body"),
        ("ellipse", ((0.41, 0.32), (0.59, 0.50)), "light"),
    ),
}
NEW_THING = "rocket"  # what the base model is never shown


def caption(thing: str, colour: str, style: str = "ink") -> str:
    """What a model reads beside the drawing: "a red house" in ink, in another style "a red house, neon"."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}" + ("" if style == "ink" else f", {style}")


def draw(thing: str, colour: str, *, size: int = 32, seed: int | None = None, style: str = "ink"):
    """One drawing.

    Parameters
    ----------
    thing : str, a key of THINGS
    colour : str, a key of COLOURS
    size : int >= 8, pixels a side
    seed : int, optional
        Of its place and size. Default: in the middle, as the shapes are.
    style : "ink" (on paper), "chalk" (on a blackboard) or "neon" (glowing in the night)

    Returns
    -------
    PIL.Image.Image, RGB, `size` × `size`

    Raises
    ------
    LabError
        An unknown thing, colour or style, or a size below 8.
    """
    from PIL import Image, ImageChops, ImageDraw, ImageFilter

    for kind, value, allowed in (("thing", thing, THINGS), ("colour", colour, COLOURS), ("style", style, STYLES)):
        choose(kind, value, allowed)
    at_least(1, size=size)
    if size < 8:
        raise LabError(f"size={size} is too small for a drawing: 8 pixels or more.")
    place, rgb, ground, side = _placement(seed), COLOURS[colour], STYLES[style], size * FINER
    canvas = Image.new("RGB", (side, side), ground)
    pen, width = ImageDraw.Draw(canvas), max(1, round(side * 0.03))
    for form, points, shade in THINGS[thing]:
        corners = [tuple(side * value for value in place(point)) for point in points]
        fill, edge = _colours(rgb, shade, style)
        if form == "polygon":
            pen.polygon(corners, fill=fill)
            pen.line([*corners, corners[0], corners[1]], fill=edge, width=width, joint="curve")
        else:
            start, end = (0, 360) if form == "ellipse" else (180, 360)  # or the upper half
            pen.chord(corners, start, end, fill=fill, outline=edge, width=width)
    if style == "neon":
        canvas = ImageChops.add(canvas, canvas.filter(ImageFilter.GaussianBlur(side * 0.035)))
    return canvas.resize((size, size), Image.Resampling.BOX)


def _placement(seed: int | None):
    """Where a point of the unit square lands: shifted and scaled by chance."""
    if seed is None:
        return lambda point: point
    chance = random.Random(seed)
    scale, right, down = chance.uniform(0.82, 0.94), chance.uniform(-0.03, 0.03), chance.uniform(-0.03, 0.03)
    return lambda point: (0.5 + (point[0] - 0.5) * scale + right, 0.5 + (point[1] - 0.5) * scale + down)


def _colours(rgb, shade: str, style: str) -> tuple:
    """Of a shape: what fills it, and its edge."""
    lighter = _mix(rgb, (255, 255, 255), 0.3)
    if style == "neon":
        left = {"body": 0.55, "dark": 0.25, "light": 0.35}[shade]
        return _mix(rgb, STYLES[style], left), lighter if shade == "light" else _mix(rgb, (255, 255, 255), 0.8)
    fill = {"body": rgb, "dark": _mix(rgb, (0, 0, 0), 0.55), "light": lighter}[shade]
    return fill, INK if style == "ink" else CHALK


def _mix(rgb, other, share: float) -> tuple:
    """`share` of one colour and the rest of the other."""
    return tuple(round(share * one + (1 - share) * two) for one, two in zip(rgb, other, strict=True))
