"""Running a study: from cells to stored, checked rows.

`setting` and `provenance` say what is run and by what, `code` (found by `imports`) which code that is, `dispatch` and
`execution` run cells on workers within `memory`, `store` and `tables` keep their rows on disk, `summary` the claims
they gave, `progress` shows the way.
The runner (`studies.runner`) is made of these.
May touch `studies.study`, `studies.files` and `studies.errors`; knows no study in particular.
"""
