"""Resolve morag-queue together with the requirements of real applications: `python -m tests.coinstall`.

Needs uv and the network; installs nothing. Prints one row per application, and exits with 1 if one conflicts.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
APPLICATIONS = {
    "Superset": ["apache-superset", "celery"],
    "open-webui": ["open-webui"],
    "docling": ["docling"],
    "NetBox": ["redis==7.4.1", "django", "django-rq", "django-prometheus"],
    "Django": ["django", "django-celery-beat", "django-celery-results", "django-redis"],
    "LangChain": ["langchain", "langchain-community", "langchain-openai", "langchain-redis"],
    "Airflow": ["apache-airflow", "apache-airflow-providers-celery", "apache-airflow-providers-redis"],
    "Flower": ["flower"],
    "FastAPI": ["fastapi[standard]", "celery[redis]"],
    "Sentry, OpenTelemetry": ["sentry-sdk[celery]", "opentelemetry-instrumentation-celery"],
    "unstructured": ["unstructured[pdf]", "celery[redis]"],
}
"""Application → its requirements. The newest release of each that resolves is used, with all that it pins."""
EXTRAS = ("", "[cli]")
_SHOWN = ("celery", "redis", "typer", "rich", "pydantic", "pypdf")


def resolve(requirements: list[str], python: str) -> tuple[dict[str, str], str]:
    """Return the version of each distribution, and the error of the resolver ("" if it succeeded)."""
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(requirements))
        wanted.flush()
        command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", python]
        done = subprocess.run([*command, wanted.name], capture_output=True, text=True, check=False)
    versions = dict(line.split("==", 1) for line in done.stdout.splitlines() if "==" in line)
    return versions, done.stderr if done.returncode else ""


def main(python: str = "3.12") -> int:
    """Print the table; the columns after the extra are the resolved versions."""
    failures = 0
    print("application", "install", "application's release", *_SHOWN, sep=" | ")
    for application, requirements in APPLICATIONS.items():
        alone, error = resolve(requirements, python)
        main_name = requirements[0].partition("=")[0].partition("[")[0]
        if error:
            print(
                application, "-", f"does not resolve without morag-queue: {error.splitlines()[-1].strip()}", sep=" | "
            )
            continue
        for extra in EXTRAS:
            pinned = f"{main_name}=={alone[main_name]}"
            both, error = resolve([*requirements, pinned, f"morag-queue{extra} @ {ROOT.as_uri()}"], python)
            failures += bool(error)
            found = error.strip().replace("\n", " ") if error else " | ".join(both.get(name, "") for name in _SHOWN)
            print(application, f"morag-queue{extra}", pinned, found, sep=" | ", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
