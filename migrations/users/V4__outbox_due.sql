-- What the relay claims, longest due first: a claim reads none of the events that are not due yet, however many those are.
-- outbox_pending_idx stays for counting the backlog, and for a process of the version before.
CREATE INDEX outbox_due_idx ON outbox (next_attempt_at, id) WHERE status = 'pending';
