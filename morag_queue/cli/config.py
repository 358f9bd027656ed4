"""`config show`: each setting with its value and where it came from."""

import json

from .context import CliContext
from .options import verb


@verb()
def show(ctx: CliContext) -> None:
    """Show each setting, its value and where it came from; secrets are masked.

    What is printed is TOML, fit for a morag-queue.toml once the secrets are filled in.
    """
    from morag_queue.settings.sources import leaves, mask_secrets
    from morag_queue.view.output import plain
    from morag_queue.view.text import safe

    loaded = ctx.loaded
    values = {key: plain(mask_secrets(key, value)) for key, value in leaves(loaded.settings)}
    ctx.emit(
        {
            "file": str(loaded.file) if loaded.file else None,
            "settings": {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()},
        },
        lambda: "\n".join(
            f"{key} = {json.dumps(value)}  # {safe(loaded.origins[key])}" for key, value in values.items()
        ),
    )


commands = {"show": show}
