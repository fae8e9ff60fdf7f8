"""One file a verb; each exposes `app`, a typer.Typer, and imports its room lazily."""
