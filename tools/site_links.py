"""Hook of mkdocs: links to files outside docs/, and the table of settings.

Pages in docs/ link to files of the repository, which works where the repository is read. For the site,
the files of results/report/ are copied; a link to any other file becomes its text and its path.
"""

import dataclasses
import html
import re
import typing
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from keras_resnet.runs.config import TrainConfig

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(\.\./([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for path in (ROOT / "results/report").iterdir():
        name = f"files/results/report/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def settings() -> str:
    """A table of TrainConfig's fields: name, type, default, help."""
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        type_ = getattr(types[field.name], "__name__", str(types[field.name])).replace("|", "or")
        recipes = field.default is None and field.metadata["group"] == "recipe"
        default = "the recipe's" if recipes else f"`{field.default!r}`"
        text = html.escape(field.metadata["help"]).replace("|", "or")
        rows.append(f"| `{field.name}` | {type_} | {default} | {text} |")
    return "\n".join(rows)


def on_page_markdown(markdown: str, **_: Any) -> str:
    def replaced(match: re.Match[str]) -> str:
        picture, text, path = match.groups()
        file, _, _ = path.partition("#")
        if file.startswith("results/report/") and (ROOT / file).is_file():
            return f"{picture}[{text}](files/{file})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(replaced, markdown).replace("<!-- settings -->", settings())
