"""`mkwrap cache`: what the cache holds, whether it is whole, and emptying it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mkwrap.cli.output import AsJson, print_json, print_lines, show
from mkwrap.errors import CacheError, OptionError
from mkwrap.options import Options
from mkwrap.report import spell_bytes
from mkwrap.toolchain.cache import Cache, Entry

Folder = Annotated[Path | None, typer.Option("--cache-dir", help="Another cache directory than the default.")]

cache_app = typer.Typer(help="What the cache holds: show, verify, clear.", no_args_is_help=True)


@cache_app.command("show")
def show_cache(cache_dir: Folder = None, as_json: AsJson = False) -> None:
    """Show where the cache is, and how much it holds of each kind."""
    options = _options(cache_dir)
    groups = _by_kind(tuple(Cache(options.cache_dir).entries()))
    total = sum(entry.size for entries in groups.values() for entry in entries)
    if as_json:
        kinds = {
            kind: {
                "entries": len(entries),
                "bytes": sum(entry.size for entry in entries),
                "oldest_use": min(entry.used for entry in entries),
            }
            for kind, entries in groups.items()
        }
        print_json({"path": str(options.cache_dir), "bytes": total, "limit": options.cache_bytes, "kinds": kinds})
        return
    table = Table("kind", box=None, pad_edge=False)
    for title in ("entries", "size", "longest unused"):
        table.add_column(title, justify="right")
    for kind, entries in groups.items():
        unused = spell_age(time.time() - min(entry.used for entry in entries))
        table.add_row(kind, str(len(entries)), spell_bytes(sum(entry.size for entry in entries)), unused)
    show(Text(str(options.cache_dir), style="bold"))
    if groups:
        show(table)
    show(f"{spell_bytes(total)} of at most {spell_bytes(options.cache_bytes)}")


@cache_app.command("verify")
def verify_cache(
    cache_dir: Folder = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every entry's digest. Damaged entries are never used; the exit code is 3 if some are left."""
    cache = Cache(_options(cache_dir).cache_dir)
    count = sum(1 for _ in cache.entries())
    damaged = cache.verify()
    left = [entry for entry in damaged if not (remove and cache.remove(entry))]
    if as_json:
        paths = [str(entry.path) for entry in damaged]
        print_json({"path": str(cache.root), "entries": count, "damaged": paths, "removed": len(damaged) - len(left)})
    else:
        show(f"{count} entries, {len(damaged)} damaged{', removed' if damaged and not left else ''}")
        print_lines(f"  {entry.path}" for entry in damaged)
    if left:
        raise CacheError(f"{len(left)} damaged entries; `mkwrap cache verify --remove` removes them")


@cache_app.command("clear")
def clear_cache(
    cache_dir: Folder = None,
    kind: Annotated[
        str | None, typer.Option("--kind", help="This kind alone, as `mkwrap cache show` lists them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove everything, or one kind: the next compile makes it again. Loaded models and files of others stay."""
    cache = Cache(_options(cache_dir).cache_dir)
    groups = _by_kind(tuple(cache.entries()))
    if kind is not None and kind not in groups:
        raise OptionError(f"--kind is {kind!r}; the cache holds: {', '.join(groups) or 'nothing'}")
    entries = [entry for name, found in groups.items() if kind in (None, name) for entry in found]
    removed = [entry for entry in entries if cache.remove(entry)]
    size = sum(entry.size for entry in removed)
    if as_json:
        print_json({"path": str(cache.root), "entries": len(removed), "bytes": size})
    else:
        show(f"removed {len(removed)} entries, {spell_bytes(size)}, from {cache.root}")
    if len(removed) < len(entries):
        raise CacheError(f"{len(entries) - len(removed)} entries cannot be removed from {cache.root}")


def spell_age(seconds: float) -> str:
    """Spell a duration in its largest whole unit: `3 days`."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def _options(cache_dir: Path | None) -> Options:
    return Options() if cache_dir is None else Options(cache_dir=cache_dir)


def _by_kind(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.kind, []).append(entry)
    return dict(sorted(groups.items()))
