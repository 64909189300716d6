"""Networks and signal measures: arrays in, arrays out. No stage, no policy, no threshold on a clip."""
