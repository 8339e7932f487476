"""Reports: from stored rows to what a reader sees.

`report` writes a result's HTML page, `display` the terminal's tables, `compare` holds two results side by side,
`pages` and `papers` feed the book, `upkeep` lists and cleans result folders.
Nothing here computes rows.
May touch `studies.running` and everything that it may touch.
"""
