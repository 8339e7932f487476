"""Recordings: the stages of an adjoint, kept, and what any amount of data says to them, read once.

`recorder` makes the stages, `recording` holds them by `parts` (`storage` writes them; a response that is needed with
them is told by its `witness`); `asking` makes the question, `shards` answers for one shard, `reach` says which points
cannot matter, `answers` merges, `concluding` makes the result; `run` goes through the shards in this process or on
Dask, `folder` keeps what is done, by its `identity`; `sharded_points` asks shards for a density and a score; `gallery`
shows influences.
May touch: readings, sources and what they may touch.
"""

from sensitivity.recordings.gallery import gallery
from sensitivity.recordings.recorder import record
from sensitivity.recordings.recording import Recording
from sensitivity.recordings.run import ShardFailure
from sensitivity.recordings.sharded_points import ShardedPoints

__all__ = ["Recording", "ShardFailure", "ShardedPoints", "gallery", "record"]
