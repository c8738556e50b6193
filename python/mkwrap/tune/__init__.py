"""Measure variants and choose: inputs, measuring processes, selection."""
