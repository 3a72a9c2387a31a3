"""`edgevlm watch`: a camera, a few fixed questions, a verdict for every part, and a record of it.

A frame goes through these folders; each has one file per kind, found by name:

    sources/  -> triggers/      -> judging/           -> records/            -> sinks/
    pictures     which frame is    regions, questions,   numbered, chained      PLC, broker, webhook, pictures
    as frames    to be judged      rules, the verdict    by hash, on disk       page/: for the person at the line

`links/` is how other machines are reached, shared by triggers and sinks of one protocol.
`plan/` is all of it as data, read from one TOML file or made of flags; `service/` runs it.
"""
