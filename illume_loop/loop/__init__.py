"""The round: states, plan, reconciliation, units, curation, gate, and the coordinator that turns them."""
