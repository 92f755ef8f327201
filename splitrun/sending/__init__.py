"""``splitrun send`` and ``receive``: streams lie on disk until a server has answered them.

::

    files, folder, pipe, camera ─► sources ─► send ──────┐
                                                         ├► outbox: spool ─► sender ─► carrier
    UDP, serial line ─► frame_lines, frames ─► receiver ─┤                              │
    MQTT broker ─────► mqtt ──────────────────► receiver ┘        HTTP, MQTT, frames ◄──┘
"""
