"""The joint audio-video transformer, its codecs and its sampler. No Ray, no corpus."""
