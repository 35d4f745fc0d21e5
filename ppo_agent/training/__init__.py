"""What `ppo-train` and `ppo-eval` are made of; nothing but the binaries and examples imports it."""
