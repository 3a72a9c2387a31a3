"""Which engine runs which graph: in words (`words`), at work (`several`), and as it was measured here (`tuned`)."""
