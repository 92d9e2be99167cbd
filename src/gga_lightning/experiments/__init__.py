"""The Hydra application: jobs, sweeps, and the selection of models."""
