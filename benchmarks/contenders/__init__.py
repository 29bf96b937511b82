"""The contenders of `benchmarks.sweep_overhead`, each in processes of its own."""
