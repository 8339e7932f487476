"""Sources: where the points of a data set lie, read shard by shard.

`source` says what a source is and chooses one for what a caller gives; `arrays`, `files` and `tables` are the sources;
`preparation` turns what is stored into states.
May touch: input checks only. A source reads; it computes nothing of sensitivities, and no path knows where its points
came from.
"""

from sensitivity.sources.choice import as_source
from sensitivity.sources.preparation import Affine, PreparedSource
from sensitivity.sources.source import PointSource, SourceError

__all__ = ["Affine", "PointSource", "PreparedSource", "SourceError", "as_source"]
