"""Terminal output as a self-contained SVG image: it fetches no fonts and no styles."""

import io

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

_FOREGROUND, _BACKGROUND = (214, 218, 226), (22, 24, 29)
_NORMAL = [
    (69, 74, 84), (240, 98, 98), (110, 200, 120), (226, 182, 90), (98, 150, 240), (196, 130, 230), (86, 190, 205),
    _FOREGROUND,
]  # fmt: skip
_BRIGHT = [
    (110, 116, 128), (255, 120, 120), (135, 220, 145), (245, 205, 115), (125, 175, 255), (215, 155, 250),
    (115, 215, 228), (255, 255, 255),
]  # fmt: skip
_THEME = TerminalTheme(_BACKGROUND, _FOREGROUND, _NORMAL, _BRIGHT)
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


def svg(renderable: RenderableType, title: str, width: int, height: int) -> str:
    """Draw a terminal of `width` columns; `height` matters only to a renderable that fills its terminal."""
    console = Console(
        file=io.StringIO(), record=True, width=width, height=height, force_terminal=True, color_system="truecolor",
        markup=False, emoji=False, highlight=False, legacy_windows=False, _environ={},
    )  # fmt: skip
    console.print(renderable)
    return console.export_svg(title=title, theme=_THEME, code_format=_FORMAT, unique_id="mq")
