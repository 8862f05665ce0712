"""What the outbox's file tells of the past: events, silences, entries of the ledger. The writer alone writes it."""
