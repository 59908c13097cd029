"""`attrsens cache`."""

from __future__ import annotations

from pathlib import Path

import typer

from attrsens.cli import console, options
from attrsens.engine.store import Store

app = typer.Typer(help="The store of finished results.", no_args_is_help=True)


@app.command("ls")
def ls(cache_dir: options.CacheDir = None, json: options.JsonList = None) -> None:
    """What is stored: key, bytes, image, model, method."""
    store = _store(cache_dir)
    rows = []
    for key in store.keys():
        entry = store.get(key)
        if entry:
            rows.append({"key": key, "bytes": store.path(key).stat().st_size, **entry.data})
    if json:
        console.write_json(rows, json)
        return
    for row in rows:
        method = row.get("method") or "prediction"
        console.out(f"{row['key'][:12]}  {row['bytes']:>9}  {row.get('image')}  {row.get('model')}  {method}")
    count, size = store.size()
    console.note(f"{count} cells, {size / 1e6:.1f} MB in {store.folder}")


@app.command("clear")
def clear(cache_dir: options.CacheDir = None) -> None:
    """Remove everything that is stored."""
    count, size = _store(cache_dir).clear()
    console.note(f"removed {count} cells, {size / 1e6:.1f} MB")


@app.command("verify")
def verify(cache_dir: options.CacheDir = None, json: options.JsonList = None) -> None:
    """Read every cell; damaged ones are set aside and will be computed again."""
    store = _store(cache_dir)
    console.set_up_logging(quiet=False, verbose=False)
    sound, damaged = store.verify()
    if json:
        console.write_json({"sound": sound, "damaged": damaged}, json)
        return
    console.out(f"{sound} sound, {damaged} damaged")


def _store(folder: Path | None) -> Store:
    return Store(folder)
