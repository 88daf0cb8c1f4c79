"""Ports: the small protocols that the engine needs and adapters implement.

Every port that touches a disk is synchronous. The serving loop never calls one; the replica's own
thread and the commands do. Only a model in another process is asynchronous.
"""

from kedge.ports.alerts import AlertStore, Channels
from kedge.ports.artifacts import Artifacts
from kedge.ports.clock import Clock
from kedge.ports.contract import CallerContract
from kedge.ports.evidence import EvidenceStore, RollStore, WindowStore
from kedge.ports.ledger import Ledger, Signal
from kedge.ports.models import Flavour, Loader, Model, OnDone, Predicted, RemoteModel
from kedge.ports.online import OnlineStore
from kedge.ports.records import RecordStore
from kedge.ports.registry import Registry
from kedge.ports.roster import Roster

__all__ = [
    "AlertStore",
    "Artifacts",
    "CallerContract",
    "Channels",
    "Clock",
    "EvidenceStore",
    "Flavour",
    "Ledger",
    "Loader",
    "Model",
    "OnDone",
    "OnlineStore",
    "Predicted",
    "RecordStore",
    "Registry",
    "RemoteModel",
    "RollStore",
    "Roster",
    "Signal",
    "WindowStore",
]
