"""Training: stage 1 (the audio half on speech), stage 2 (both streams), and fine-tuning by LoRA."""
