"""The life of a model at its provider: trained, looked at, deployed, listed, deleted."""
