"""`edgevlm serve`: bundles behind the HTTP interface that OpenAI's clients speak.

`app` has the addresses; a request is read (`fields`), its pictures are brought (`pictures`), it waits its turn
(`line`), a thread of its bundle answers it (`work`), and what comes is told as JSON or as events (`answers`).
"""
