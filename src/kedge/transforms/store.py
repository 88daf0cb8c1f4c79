"""The online store of a process, opened by its entry point's name. It imports no NumPy."""

from __future__ import annotations

from importlib.metadata import entry_points

from kedge.core.errors import UnfitModel
from kedge.core.features.generations import Online
from kedge.ports import OnlineStore

_opened: dict[tuple[str, str], OnlineStore] = {}
"""Open stores: LMDB allows one opening of an environment in a process."""


def open_store(online: Online) -> OnlineStore:
    """Return the store of this process; it is opened once.

    Raises:
        UnfitModel: `missing_dependency`: its library is not installed; `unknown_store`.
        Unavailable: `online_unavailable`.
    """
    key = online.store, online.where
    if key not in _opened:
        points = {point.name: point for point in entry_points(group="kedge.online")}
        if online.store not in points:
            raise UnfitModel(
                f"there is no online store {online.store}",
                code="unknown_store",
                hint=f"installed are: {', '.join(sorted(points))}",
            )
        try:
            make = points[online.store].load()
        except ImportError as error:
            raise UnfitModel(
                f"the online store {online.store} needs {error.name or error}, which is not"
                " installed",
                code="missing_dependency",
                hint=f"pip install 'kedge[{online.store}]'",
            ) from error
        _opened[key] = make(online.where)
    return _opened[key]
