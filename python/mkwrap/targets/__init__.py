"""Targets: device, language and toolchain joined in one value each."""
