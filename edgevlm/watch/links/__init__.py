"""How other machines are reached: what a sink and a trigger of one protocol share. One file per protocol.

Nothing here is imported before a plan names a kind that needs it.
"""
