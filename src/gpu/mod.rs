//! The gate: whether the NVIDIA driver answers, asked in a child process.
