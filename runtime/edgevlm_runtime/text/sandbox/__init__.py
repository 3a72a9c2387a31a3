"""Where chat templates run: programs from strangers, which get no more time and memory than a conversation can need.

`budget` counts, `counting` puts the counting into a template's code, `operations` says what an operation may cost
before it runs, `environment` puts them together into a Jinja environment that is otherwise transformers' own.
"""
