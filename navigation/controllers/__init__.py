"""Rule-based controllers: what a robot drives with when it has no policy, and what a policy has to beat."""
