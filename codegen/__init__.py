"""Pure text: writes kernels and host code. No torch, no files, no processes, no clock."""
