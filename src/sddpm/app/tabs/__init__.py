"""The views as gradio shows them, one file each."""
