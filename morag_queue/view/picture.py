"""A picture of what the terminal shows, as SVG. It stands alone: no font and no style is fetched from anywhere."""

import io

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

_INK, _PAPER = (214, 218, 226), (22, 24, 29)
_USUAL = [
    (69, 74, 84), (240, 98, 98), (110, 200, 120), (226, 182, 90), (98, 150, 240), (196, 130, 230), (86, 190, 205), _INK,
]  # fmt: skip
_BRIGHT = [
    (110, 116, 128), (255, 120, 120), (135, 220, 145), (245, 205, 115), (125, 175, 255), (215, 155, 250),
    (115, 215, 228), (255, 255, 255),
]  # fmt: skip
_THEME = TerminalTheme(_PAPER, _INK, _USUAL, _BRIGHT)
_FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: system-ui, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def svg(shown: RenderableType, title: str, width: int, height: int) -> str:
    """The picture of a terminal so many columns wide that shows this; `height` matters to what fills its terminal."""
    console = Console(
        file=io.StringIO(), record=True, width=width, height=height, force_terminal=True, color_system="truecolor",
        markup=False, emoji=False, highlight=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(shown)
    return console.export_svg(title=title, theme=_THEME, code_format=_FORMAT, unique_id="mq")
