"""`dashboard`: a Grafana dashboard of the metrics that `watch` serves."""

from importlib.resources import files

from .context import CliContext
from .options import verb


@verb(fleet=False)
def command(ctx: CliContext) -> None:
    """Print a Grafana dashboard (JSON) of the metrics that `watch --metrics-port` serves.

    Import it in Grafana, or put it where its provisioning looks: morag-queue dashboard > morag-queue.json
    """
    ctx.world.answered = True
    ctx.stdout.write(files("morag_queue").joinpath("data", "grafana.json").read_text("utf-8"))
