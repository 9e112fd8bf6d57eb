"""ERank's training: fine-tuning on generated scores, then GRPO with a listwise reward."""
