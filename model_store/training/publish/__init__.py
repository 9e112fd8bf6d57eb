"""From a base and a LoRA adapter to a folder that is served: merged or alone, checked, described,
and then visible."""
