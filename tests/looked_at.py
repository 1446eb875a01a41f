"""An identity whose photos were looked at and nothing was learned from: all that the untrained methods need."""

from dataclasses import asdict
from pathlib import Path

from album import drawn_photos
from magicid_cli import config
from magicid_cli.events import Events
from magicid_cli.stages import ingest
from magicid_cli.workspace import Workspace


def identity(photos: Path, name: str = "alice") -> Workspace:
    """Make it in the home in use, for the tiny model; its photos go below `photos`."""
    workspace = Workspace(name)
    workspace.create()
    settings = config.resolve({"model.name": "tiny", "seed": 7}).settings
    done = ingest.run(workspace, settings, Events(), photos=drawn_photos(photos))
    stage = {"key": "", "state": "done", "outputs": ingest.outputs(workspace), "result": {"used": done.used}}
    recorded = {"values": asdict(settings), "origins": {}}
    workspace.update(model="tiny", class_word="person", seed=7, stages={"ingest": stage}, settings=recorded)
    return workspace
