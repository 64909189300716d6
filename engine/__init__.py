"""The stage contract, its two executors, the ledger, model weights and configuration."""
