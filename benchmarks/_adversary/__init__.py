"""Parts of ``benchmarks.adversary``: policies that want to touch something, what stands in their way, the count."""
