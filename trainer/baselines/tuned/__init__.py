"""The best settings that searches found (``NAME.yaml``) and the searches' logs (``NAME.jsonl``)."""
