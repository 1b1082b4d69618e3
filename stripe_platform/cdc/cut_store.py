"""Where a run keeps its cut, so that every step of the run works on the same one."""

from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from stripe_platform.cdc.cut import Cut
from stripe_platform.settings import Settings

# A later run of one model alone builds on the newest cut; older ones serve only to look at what a run did.
KEPT = 100
LATEST = "latest"


def save_cut(settings: Settings, run_id: str, cut: Cut) -> None:
    """Keep the cut as that of the run and as the newest one."""
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (run_id, LATEST):
        _replace(folder / f"{name}.json", cut.to_json())
    oldest_first = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in oldest_first[: -KEPT - 1]:
        with suppress(FileNotFoundError):
            path.unlink()


def cut_of_run(settings: Settings, run_id: str) -> Cut | None:
    """The cut that this run made, if it made one."""
    return _read(_folder(settings) / f"{run_id}.json")


def newest_cut(settings: Settings) -> Cut | None:
    """The cut made last by any run."""
    return _read(_folder(settings) / f"{LATEST}.json")


def _folder(settings: Settings) -> Path:
    return settings.home / "cuts"


def _read(path: Path) -> Cut | None:
    try:
        return Cut.from_json(path.read_text())
    except FileNotFoundError:
        return None


def _replace(path: Path, text: str) -> None:
    # Renamed into place: a reader never meets half a file.
    with NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as part:
        part.write(text)
    Path(part.name).replace(path)
