"""The gradio tabs of the views, one file each."""
