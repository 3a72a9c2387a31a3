"""Qwen-VL: towers at native resolution whose patches are merged, multimodal rotary embedding."""
