"""Decode, encode, resample, face crops and mel features. No policy, no Ray."""
