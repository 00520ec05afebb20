"""Pruning with other libraries: callbacks for Hugging Face's Trainer and Lightning, and adapters of peft."""
