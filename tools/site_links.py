"""Hook of mkdocs: files of the repository outside docs/ become part of the site, or plain text.

Pages in docs/ link to pictures and files beside docs/, which works where the repository is read. On the site, pictures
and reports of results/ are copied; a link to anything else keeps its text and shows the path.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]\n]*)\]\(\.\./([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    for path in (ROOT / "results/report").iterdir():
        name = f"files/results/report/{path.name}"
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    def replaced(match: re.Match[str]) -> str:
        picture, text, path = match.groups()
        file, _, _ = path.partition("#")
        if file.startswith("results/report/") and (ROOT / file).is_file():
            return f"{picture}[{text}](files/{file})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(replaced, markdown)
