"""kedge: ships a model version safely, and takes it back in seconds, with proof."""
