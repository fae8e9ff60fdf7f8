"""Detectors with a memory: one small class per kind of fault, composed by ``safety.watch.board``."""
