"""LoRA on pictures, on Gemma in Keras, and on a vision-language model (page 12)."""
