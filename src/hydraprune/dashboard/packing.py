"""A large page with its contents compressed; the browser unpacks them."""

from __future__ import annotations

import base64
import gzip
import json

# Characters from which a page is packed: smaller ones can be read, and searched, without a browser.
LARGE = 3_000_000

_DATA = '<script type="application/json" id="data">'


def packed(page: str) -> str:
    """A rendered page with what is in `<main>`, and the data of its figures, as gzip in base64."""
    before, rest = page.split("<main>", 1)
    main, after = rest.split("</main>", 1)
    start, end = after.index(_DATA), after.index("</script>", after.index(_DATA))
    data = after[start + len(_DATA) : end]
    contents = f'{{"main":{json.dumps(main)},"page":{data}}}'
    # Without a time, so that equal pages have equal bytes.
    text = base64.b64encode(gzip.compress(contents.encode(), 9, mtime=0)).decode()
    return f'{before}<main></main>{after[:start]}<script type="application/gzip" id="data">{text}{after[end:]}'
