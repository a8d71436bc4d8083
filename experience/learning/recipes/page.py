"""`python -m experience.learning.recipes.page PAGE`: writes the tables of recipes into a page.

A table stands between a comment that names it and an empty comment, and is replaced as a whole.
"""

from __future__ import annotations

import sys
from pathlib import Path

from experience.learning.recipes.table import as_text, cells_as_text


def written(page: str) -> str:
    """The page with both tables as they are now."""
    for name, table in (("recipes", as_text()), ("cells", cells_as_text())):
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        if rest:
            after = rest.partition("<!-- -->")[2]
            page = f"{before}<!-- {name} -->\n{table}\n<!-- -->{after}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text()))
