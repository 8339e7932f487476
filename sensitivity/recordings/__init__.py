"""Recordings: the stages of an adjoint, kept, and what any amount of data says to them, read once.

`recording` makes and keeps the stages (`storage` writes them); `shards` answers for one shard, `reach` says which
points cannot matter, `answers` merges; `run` goes through the shards in this process or on Dask, `folder` keeps what is
done; `gallery` shows the result. May touch: readings, sources and what they may touch.
"""

from sensitivity.recordings.gallery import gallery
from sensitivity.recordings.recording import Recording, record
from sensitivity.recordings.run import ShardFailure

__all__ = ["Recording", "ShardFailure", "gallery", "record"]
