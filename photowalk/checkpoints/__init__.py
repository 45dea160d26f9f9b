"""Published weights: which there are, how they come here, how their files are read, and what they become.

Whatever a file is called and however it is written, it is converted once to safetensors under this project's own names
and lies in the store from then on; the rest of photowalk reads nothing else.
"""
