"""`flight/1` and its first transformation: the scheduled hour is in local time."""

import numpy as np

import kedge

NUMBER = kedge.Field("float32", null=True)
flight = kedge.schema(
    "flight/1",
    keys=["tailnum"],
    fields={
        "origin": kedge.Field("string", categories=("EWR", "JFK", "LGA")),
        "dest": kedge.Field("string"),
        "carrier": kedge.Field("string"),
        "month": kedge.Field("int32", range=(1, 12)),
        "weekday": kedge.Field("int32", range=(0, 6)),
        "sched_hour": kedge.Field("int32", unit="h, local", range=(0, 24)),
        "sched_minute": kedge.Field("int32", unit="min of the day, local", range=(0, 1440)),
        "distance": kedge.Field("float32", unit="miles", range=(0, 6000)),
        **dict.fromkeys(
            (
                "plane_age",
                "seats",
                "temp",
                "dewp",
                "wind_speed",
                "wind_gust",
                "precip",
                "pressure",
                "visib",
            ),
            NUMBER,
        ),
    },
)
SAME = tuple(name for name in flight.fields if name not in ("sched_hour", "sched_minute"))


@kedge.transform(flight)
def flight_columns(raw: kedge.Columns) -> kedge.Columns:
    """Use the local schedule; the other columns come from the request."""
    minute = raw["sched_minute"].astype(np.int32)
    return {
        **{name: raw[name] for name in SAME},
        "sched_hour": (minute // 60).astype(np.int32),
        "sched_minute": minute,
    }
